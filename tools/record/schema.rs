//! The schema: messages, enums and methods, read once from `etcd.schema`.

use std::collections::BTreeMap;

/// How a field's bytes on the wire are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Bytes,
    Text,
    Bool,
    Signed,
    Unsigned,
    /// Name of the enum.
    Enum(String),
    /// Name of the message.
    Message(String),
}

#[derive(Clone, Debug)]
pub struct Field {
    pub number: u64,
    pub name: String,
    pub kind: Kind,
    /// The mask after `@`, if the value differs from run to run.
    pub mask: Option<String>,
}

pub struct Method {
    /// The HTTP/2 path, `/package.Service/Method`.
    pub path: String,
    pub request: String,
    pub reply: String,
}

pub struct Schema {
    messages: BTreeMap<String, Vec<Field>>,
    enums: BTreeMap<String, Vec<(String, i64)>>,
    methods: BTreeMap<String, Method>,
}

impl Schema {
    pub fn load() -> Schema {
        let mut schema =
            Schema { messages: BTreeMap::new(), enums: BTreeMap::new(), methods: BTreeMap::new() };
        let lines: Vec<Vec<&str>> = include_str!("etcd.schema")
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
            .map(|line| line.split_whitespace().collect())
            .collect();
        for words in lines.iter().filter(|words| words[0] == "enum") {
            let values = words[2..].iter().map(|word| {
                let (name, number) = word.split_once('=').expect("an enum value is name=number");
                (name.to_string(), number.parse().expect("an enum number is an integer"))
            });
            schema.enums.insert(words[1].to_string(), values.collect());
        }
        let mut message = "";
        for words in &lines {
            match words[0] {
                "enum" => {}
                "message" => {
                    message = words[1];
                    schema.messages.insert(message.to_string(), Vec::new());
                }
                "rpc" => schema.add_method(words),
                _ => {
                    let field = schema.field_of(words);
                    schema.messages.get_mut(message).expect("a field follows its message").push(field);
                }
            }
        }
        schema
    }

    fn add_method(&mut self, words: &[&str]) {
        let mut parts = words[1].rsplitn(3, '.');
        let method = parts.next().expect("an rpc has a method");
        let service = parts.next().expect("an rpc has a service");
        let package = parts.next().expect("an rpc has a package");
        self.methods.insert(
            format!("{service}.{method}"),
            Method {
                path: format!("/{package}.{service}/{method}"),
                request: words[2].to_string(),
                reply: words[3].to_string(),
            },
        );
    }

    fn field_of(&self, words: &[&str]) -> Field {
        let kind = match words[2].trim_end_matches('*') {
            "bytes" => Kind::Bytes,
            "string" => Kind::Text,
            "bool" => Kind::Bool,
            "int32" | "int64" => Kind::Signed,
            "uint32" | "uint64" => Kind::Unsigned,
            name if self.enums.contains_key(name) => Kind::Enum(name.to_string()),
            name => Kind::Message(name.to_string()),
        };
        Field {
            number: words[0].parse().expect("a field begins with its number"),
            name: words[1].to_string(),
            kind,
            mask: words.get(3).map(|mask| mask.trim_start_matches('@').to_string()),
        }
    }

    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.get(name)
    }

    /// The reply of the method at an HTTP/2 path.
    pub fn reply_at(&self, path: &str) -> Option<&str> {
        self.methods.values().find(|method| method.path == path).map(|method| method.reply.as_str())
    }

    /// The fields of a message, in the order of their numbers.
    pub fn fields(&self, message: &str) -> &[Field] {
        self.messages.get(message).unwrap_or_else(|| panic!("the schema has no message {message}"))
    }

    pub fn enum_number(&self, name: &str, value: &str) -> Option<i64> {
        self.enums[name].iter().find(|(known, _)| known == value).map(|(_, number)| *number)
    }

    pub fn enum_name(&self, name: &str, value: i64) -> Option<&str> {
        self.enums[name].iter().find(|(_, number)| *number == value).map(|(known, _)| known.as_str())
    }
}
