//! Curfew's own questions to a database server, asked on behalf of nobody: what its accounts can do
//! there, and the SQL that an operator has it run.
//!
//! Simple queries and their answers as text: all that catalogs need.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::accounts::Login;
use super::frame::take_text;
use super::upstream::{CONNECT, ConnectError, Stream, Target};

/// How long one question may take. The longest reads every function of the catalog, some 10 ms of a
/// few thousand; a setup may wait for locks of others.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest message of an answer: a row of a catalog has a few hundred bytes, and with the SQL
/// that takes rights away from twenty functions some kilobytes.
const MESSAGE_BYTES_MAX: usize = 1_024 * 1_024;
/// The most rows of an answer: functions of large extensions come grouped, tables do not.
const ROWS_MAX: usize = 10_000;

/// One row: its columns as text, NULL as the empty text.
pub(crate) type Row = Vec<String>;

/// A connection of Curfew's own.
pub(crate) struct Direct {
    stream: Box<dyn Stream>,
    read: BytesMut,
    /// The number of the server's process, as the connection was told it.
    pub(crate) process: i32,
}

/// What came of a query.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// What the server remarked, warnings among it.
    pub(crate) notices: Vec<String>,
}

impl Direct {
    /// Signs in with this account.
    pub(crate) async fn connect(
        target: &Target,
        login: &Login,
        database: &str,
    ) -> Result<Self, ConnectError> {
        let own = [
            ("application_name", "curfew"),
            ("client_encoding", "UTF8"),
            ("search_path", "pg_catalog"),
            ("standard_conforming_strings", "on"),
        ];
        let parameters = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let greeted = tokio::time::timeout(CONNECT, target.greet(login, database, &parameters));
        let greeting = greeted.await.unwrap_or(Err(ConnectError::Slow))?;
        Ok(Self {
            process: greeting.key.process,
            stream: greeting.stream,
            read: greeting.rest,
        })
    }

    /// Runs the statements of a text and gives the rows of all of them.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Answer, ConnectError> {
        let answered = tokio::time::timeout(ANSWER, self.ask(sql)).await;
        answered.unwrap_or(Err(ConnectError::Slow))
    }

    async fn ask(&mut self, sql: &str) -> Result<Answer, ConnectError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        let mut answer = Answer::default();
        let mut refused = None;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'D' if answer.rows.len() < ROWS_MAX => {
                    answer.rows.push(row(&body).ok_or_else(invalid)?);
                }
                b'D' => return Err(invalid().into()),
                b'E' => refused = Some(fields(&body)),
                b'N' => answer.notices.push(fields(&body).1),
                b'Z' => break,
                _ => {}
            }
        }
        match refused {
            Some((code, message)) => Err(ConnectError::Refused(code, message)),
            None => Ok(answer),
        }
    }

    async fn message(&mut self) -> io::Result<(u8, BytesMut)> {
        loop {
            if let Some([tag, length @ ..]) = self.read.first_chunk::<5>() {
                let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| invalid())?;
                if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
                    return Err(invalid());
                }
                if self.read.len() > length {
                    let tag = *tag;
                    let mut message = self.read.split_to(1 + length);
                    message.advance(5);
                    return Ok((tag, message));
                }
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The columns of a DataRow.
fn row(mut body: &[u8]) -> Option<Row> {
    let count = body.try_get_u16().ok()?;
    let mut row = Row::with_capacity(count.into());
    for _ in 0..count {
        let Ok(length) = usize::try_from(body.try_get_i32().ok()?) else {
            row.push(String::new());
            continue;
        };
        let (text, rest) = body.split_at_checked(length)?;
        row.push(String::from_utf8_lossy(text).into_owned());
        body = rest;
    }
    Some(row)
}

/// SQLSTATE and message of an ErrorResponse's or NoticeResponse's body.
pub(crate) fn fields(mut body: &[u8]) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    while let Some((&field, rest)) = body.split_first() {
        body = rest;
        let Some(text) = take_text(&mut body) else {
            break;
        };
        let text = || String::from_utf8_lossy(text).into_owned();
        match field {
            b'C' => code = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_far_as_they_go() {
        let whole = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(row(whole).unwrap(), ["ab", "", ""]);
        assert_eq!(row(b"\0\x01\0\0\0\x09ab"), None);
        assert_eq!(row(b"\0\x02\0\0\0\x02ab"), None);
        assert_eq!(row(b""), None);
        let told = fields(b"SERROR\0C42501\0Mno\0\0");
        assert_eq!(told, ("42501".to_owned(), "no".to_owned()));
    }
}
