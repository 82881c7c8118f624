//! Function calls by number (`FunctionCall`, "fastpath"): libpq's large objects use them.

use bytes::Buf;

use super::super::sql::{Class, Reach, Statement};

/// `INV_WRITE` of `libpq-fs.h`.
const INV_WRITE: i32 = 0x0002_0000;

/// The functions of PostgreSQL that libpq calls by number: OID (`pg_proc.dat`), text for the log,
/// and reach. `lo_open` is judged by its mode.
const FUNCTIONS: &[(u32, &str, Class)] = &[
    (715, "lo_create($1)", Class::Write),
    (764, "lo_import($1)", Class::Ddl),
    (765, "lo_export($1, $2)", Class::Ddl),
    (767, "lo_import($1, $2)", Class::Ddl),
    (LO_OPEN, "lo_open($1, $2)", Class::Write),
    (953, "lo_close($1)", Class::Read),
    (954, "loread($1, $2)", Class::Read),
    (955, "lowrite($1, $2)", Class::Write),
    (956, "lo_lseek($1, $2, $3)", Class::Read),
    (957, "lo_creat($1)", Class::Write),
    (958, "lo_tell($1)", Class::Read),
    (964, "lo_unlink($1)", Class::Write),
    (1004, "lo_truncate($1, $2)", Class::Write),
    (3170, "lo_lseek64($1, $2, $3)", Class::Read),
    (3171, "lo_tell64($1)", Class::Read),
    (3172, "lo_truncate64($1, $2)", Class::Write),
];

const LO_OPEN: u32 = 952;

/// What a call does, by the first bytes of its message's body. None where they are not those of one.
pub(super) fn read(mut body: &[u8]) -> Option<Statement> {
    let oid = body.try_get_u32().ok()?;
    let known = FUNCTIONS.iter().find(|(known, ..)| *known == oid);
    let Some((_, text, class)) = known else {
        let text = format!("(function {oid}, called by number)");
        return Some(Statement::call(&text, Reach::UNKNOWN));
    };
    let read_only = oid == LO_OPEN && mode(body).is_some_and(|mode| mode & INV_WRITE == 0);
    let class = if read_only { Class::Read } else { *class };
    Some(Statement::call(text, Reach::known(class)))
}

/// The second argument of `lo_open`, where it is sent as libpq sends it: four binary bytes.
fn mode(mut body: &[u8]) -> Option<i32> {
    let formats = body.try_get_i16().ok()?;
    for _ in 0..formats {
        // Text formats are not read: the mode then counts as one for writing.
        if body.try_get_i16().ok()? != 1 {
            return None;
        }
    }
    if formats < 1 || body.try_get_i16().ok()? != 2 {
        return None;
    }
    let first = usize::try_from(body.try_get_i32().ok()?).ok()?;
    body = body.get(first..)?;
    (body.try_get_i32().ok()? == 4)
        .then(|| body.try_get_i32().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lo_open(mode: i32) -> Vec<u8> {
        let parts: [&[u8]; 7] = [
            &LO_OPEN.to_be_bytes(),
            &[0, 1, 0, 1, 0, 2],
            &[0, 0, 0, 4],
            &[0, 0, 0, 9],
            &[0, 0, 0, 4],
            &mode.to_be_bytes(),
            &[0, 1],
        ];
        parts.concat()
    }

    #[test]
    fn calls_are_known_by_their_number() {
        let reach = |body: &[u8]| read(body).unwrap().reach;
        assert_eq!(reach(&lo_open(0x4_0000)), Reach::READ);
        assert_eq!(reach(&lo_open(0x6_0000)), Reach::known(Class::Write));
        assert_eq!(reach(&LO_OPEN.to_be_bytes()), Reach::known(Class::Write));
        assert_eq!(reach(&954_u32.to_be_bytes()), Reach::READ);
        assert_eq!(reach(&2_097_u32.to_be_bytes()), Reach::UNKNOWN);
        assert!(FUNCTIONS.is_sorted_by_key(|(oid, ..)| oid));
        assert!(read(&[0, 0]).is_none());
    }
}
