//! A walk over a whole parse tree that cannot forget a field.
//!
//! The tree's types implement `Serialize`, so a serializer that writes nothing sees every message
//! with its name, whatever the grammar puts into it. What it does not know is not read-only.

use std::fmt;

use serde::ser::{self, Impossible, Serialize};

use super::rules::{self, Class, Reach};

/// The reach of everything under `tree`.
pub(super) fn look<T: Serialize + ?Sized>(tree: &T) -> Reach {
    walk(tree, false)
}

/// The reach of the functions and operators under `tree` and of nothing else.
pub(super) fn look_at_calls<T: Serialize + ?Sized>(tree: &T) -> Reach {
    walk(tree, true)
}

fn walk<T: Serialize + ?Sized>(tree: &T, calls_only: bool) -> Reach {
    let mut walk = Walk {
        reach: Reach::READ,
        calls_only,
    };
    // The only error is one of ours, and it means that something was not looked at.
    match tree.serialize(&mut walk) {
        Ok(()) => walk.reach,
        Err(Strange) => Reach::known(Class::Ddl),
    }
}

struct Walk {
    reach: Reach,
    calls_only: bool,
}

impl Walk {
    fn raise(&mut self, reach: Reach) {
        self.reach = self.reach.max(reach);
    }
}

/// The walk met something that a parse tree does not hold.
#[derive(Debug)]
struct Strange;

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a parse tree")
    }
}

impl std::error::Error for Strange {}

impl ser::Error for Strange {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// One message of the tree, while its fields pass by.
struct Message<'a> {
    walk: &'a mut Walk,
    name: &'static str,
    /// The name of the function, where the message is a call.
    function: Vec<String>,
}

impl ser::SerializeStruct for Message<'_> {
    type Ok = ();
    type Error = Strange;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Strange> {
        match (self.name, key) {
            ("FuncCall", "funcname") => {
                self.function = names(value);
                if !rules::needs_arguments(&self.function) {
                    self.walk.raise(rules::function(&self.function, &[]));
                }
            }
            ("FuncCall", "args") if rules::needs_arguments(&self.function) => {
                let arguments = constants(value);
                self.walk.raise(rules::function(&self.function, &arguments));
            }
            ("AIndirection", "indirection") => {
                for name in names(value) {
                    self.walk.raise(rules::attribute(&name));
                }
            }
            ("ColumnRef", "fields") => {
                for name in names(value).iter().skip(1) {
                    self.walk.raise(rules::attribute(name));
                }
            }
            ("AExpr", "name") | ("SubLink", "oper_name") | ("SortBy", "use_op") => {
                self.walk.raise(rules::operator(&names(value)));
            }
            _ => {}
        }
        value.serialize(&mut *self.walk)
    }

    fn end(self) -> Result<(), Strange> {
        Ok(())
    }
}

/// The parts of a dotted name: a list of `String` nodes.
pub(super) fn names<T: Serialize + ?Sized>(list: &T) -> Vec<String> {
    let Ok(serde_json::Value::Array(items)) = serde_json::to_value(list) else {
        return Vec::new();
    };
    items
        .iter()
        .map(|item| {
            let part = item
                .pointer("/node/String/sval")
                .and_then(serde_json::Value::as_str);
            // A part that is not a plain name matches nothing on any list.
            part.unwrap_or("\0").to_owned()
        })
        .collect()
}

/// Some arguments, each where it is a constant.
fn constants<T: Serialize + ?Sized>(args: &T) -> Vec<Option<String>> {
    let Ok(serde_json::Value::Array(items)) = serde_json::to_value(args) else {
        return Vec::new();
    };
    let constant = |item: &serde_json::Value| {
        let value = item.pointer("/node/AConst/val")?;
        let text = value.pointer("/Sval/sval").and_then(|text| text.as_str());
        let number = value
            .pointer("/Ival/ival")
            .and_then(|number| number.as_i64());
        text.map(str::to_owned)
            .or_else(|| number.map(|number| number.to_string()))
    };
    items.iter().map(constant).collect()
}

struct Items<'a>(&'a mut Walk);

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Strange;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Strange> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), Strange> {
        Ok(())
    }
}

macro_rules! nothing {
    ($($method:ident: $type:ty),+ $(,)?) => {$(
        fn $method(self, _: $type) -> Result<(), Strange> {
            Ok(())
        }
    )+};
}

type Never = Impossible<(), Strange>;

impl<'a> ser::Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Strange;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Message<'a>;
    type SerializeStructVariant = Never;

    nothing! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_f32: f32, serialize_f64: f64, serialize_char: char,
        serialize_str: &str, serialize_bytes: &[u8], serialize_unit_struct: &'static str,
    }

    fn serialize_none(self) -> Result<(), Strange> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Strange> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Strange> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Strange> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Strange> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Strange> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Strange> {
        Ok(Items(self))
    }

    fn serialize_tuple(self, _: usize) -> Result<Never, Strange> {
        Err(Strange)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, Strange> {
        Err(Strange)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Strange> {
        Err(Strange)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Never, Strange> {
        Err(Strange)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Message<'a>, Strange> {
        if !self.calls_only {
            self.raise(Reach::known(rules::message(name)));
        }
        Ok(Message {
            walk: self,
            name,
            function: Vec::new(),
        })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Strange> {
        Err(Strange)
    }
}
