//! A play: a connection with a client, a server and whoever answers for what is asked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use postgres_protocol::message::frontend as front;

use super::super::*;
use crate::frame::{Complaint, message, ready_for_query};
use crate::sql::{Class, Classifier};

/// A right that the play can take back and hold the record of.
#[derive(Clone, Debug)]
pub(super) struct Token(pub(super) Rc<Marks>);

#[derive(Debug)]
pub(super) struct Marks {
    pub(super) lives: Cell<bool>,
    pub(super) recorded: Cell<bool>,
    pub(super) skipped: RefCell<Vec<usize>>,
}

impl Right for Token {
    fn lives(&self) -> bool {
        self.0.lives.get()
    }

    fn is_recorded(&self) -> bool {
        self.0.recorded.get()
    }

    fn skipped(&self, asks: &[usize]) {
        self.0.skipped.borrow_mut().extend_from_slice(asks);
    }
}

pub(super) fn token() -> Token {
    Token(Rc::new(Marks {
        lives: Cell::new(true),
        recorded: Cell::new(true),
        skipped: RefCell::default(),
    }))
}

pub(super) struct Play {
    pub(super) protocol: Protocol<Token>,
    classifier: Classifier,
    /// What is being asked.
    pub(super) asked: Vec<String>,
}

/// The types of some messages; of an error its SQLSTATE, of ReadyForQuery its status.
pub(super) fn tags(bytes: &mut BytesMut) -> String {
    let mut seen = String::new();
    while let Some(head) = bytes.get(..5) {
        let length = i32::from_be_bytes(head[1..].try_into().unwrap());
        let body = bytes.split_to(usize::try_from(length).unwrap() + 1);
        match body[0] {
            b'Z' => seen += &format!("Z{}", char::from(body[5])),
            b'E' if body[5] == b'S' => {
                let fields = body[5..].split(|byte| *byte == 0);
                let code = fields
                    .into_iter()
                    .find(|field| field.first() == Some(&b'C'));
                seen += &format!("E({})", String::from_utf8_lossy(&code.unwrap()[1..]));
            }
            tag => seen.push(char::from(tag)),
        }
    }
    assert!(bytes.is_empty(), "half a message");
    seen
}

impl Play {
    pub(super) fn new() -> Self {
        Self::of(None)
    }

    pub(super) fn of(account: Option<Class>) -> Self {
        let (read, rest) = (BytesMut::new(), BytesMut::new());
        Self {
            protocol: Protocol::new(read, rest, account, "none".to_owned()),
            classifier: Classifier::new(),
            asked: Vec::new(),
        }
    }

    pub(super) fn advance(&mut self) {
        match self.protocol.advance(&self.classifier).unwrap() {
            Some(Want::Ask(asks)) => {
                let told = asks.iter().map(|ask| {
                    let verb = if ask.prepares { "prepare" } else { "run" };
                    format!("{verb} {:?} {}", ask.class, ask.statement.text)
                });
                self.asked = told.collect();
            }
            Some(Want::Read(..)) => panic!("no text here is long"),
            None => {}
        }
    }

    /// The client says this. Gives what is asked then.
    pub(super) fn client(&mut self, write: impl FnOnce(&mut BytesMut)) -> Vec<String> {
        write(self.protocol.buffers().from_client);
        self.advance();
        std::mem::take(&mut self.asked)
    }

    pub(super) fn query(&mut self, text: &str) -> Vec<String> {
        self.client(|out| front::query(text, out).unwrap())
    }

    /// What was asked is allowed. Gives what goes to the server.
    pub(super) fn allow(&mut self) -> String {
        self.allow_with(&token())
    }

    pub(super) fn allow_with(&mut self, token: &Token) -> String {
        let all = self.protocol.unit.asks.len();
        self.protocol.answered(Some(token.clone()), all, None);
        self.advance();
        self.sent()
    }

    /// All but the first `allowed` of what was asked is refused.
    pub(super) fn refuse(&mut self, allowed: usize) -> String {
        let token = (allowed > 0).then(token);
        let refusal = Complaint::error("42501", "no");
        self.protocol.answered(token, allowed, Some(refusal));
        self.advance();
        self.sent()
    }

    pub(super) fn sent(&mut self) -> String {
        tags(self.protocol.buffers().to_server)
    }

    /// The server says messages of these types. Gives what goes to the client.
    pub(super) fn server(&mut self, types: &str) -> String {
        let out = self.protocol.buffers().from_server;
        let mut types = types.chars();
        while let Some(tag) = types.next() {
            match tag {
                'Z' => ready_for_query(out, types.next().unwrap() as u8),
                'E' => Complaint::error("22012", "its own").write(out),
                tag => message(out, tag as u8, |_| {}),
            }
        }
        self.advance();
        self.heard()
    }

    pub(super) fn parameter(&mut self, name: &str, value: &str) {
        frame::parameter_status(self.protocol.buffers().from_server, name, value);
        self.advance();
        self.heard();
    }

    pub(super) fn heard(&mut self) -> String {
        tags(self.protocol.buffers().to_client)
    }

    /// A simple query that is allowed and works.
    pub(super) fn run(&mut self, text: &str, status: char) {
        self.query(text);
        assert_eq!(self.allow(), "Q");
        self.server(&format!("CZ{status}"));
    }
}

pub(super) fn parse(out: &mut BytesMut, name: &str, text: &str) {
    front::parse(name, text, [], out).unwrap();
}

pub(super) fn bind(out: &mut BytesMut, portal: &str, name: &str, value: &[u8]) {
    let put = |value: &[u8], out: &mut BytesMut| {
        out.extend_from_slice(value);
        Ok(postgres_protocol::IsNull::No)
    };
    front::bind(portal, name, [1], [value], put, [1], out)
        .ok()
        .unwrap();
}

pub(super) fn extended(out: &mut BytesMut, text: &str) {
    parse(out, "", text);
    bind(out, "", "", b"");
    front::describe(b'P', "", out).unwrap();
    front::execute("", 0, out).unwrap();
}
