//! JSON as text: checked, and read in place. Values keep the text they were written with, numbers all their digits.
//!
//! Follows RFC 8259. Of two members with one key the last counts, as in PostgreSQL.

/// Deepest nesting that is accepted; deeper text would exhaust the stack of whoever reads it.
const DEPTH_MAX: usize = 512;

/// Whether `text` is one JSON value.
pub(crate) fn is_json(text: &str) -> bool {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    reader.skip_blank();
    reader.value(0).is_some() && {
        reader.skip_blank();
        reader.at == text.len()
    }
}

/// Kind of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonKind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl JsonKind {
    /// Kind of the value `text`, by its first character.
    pub(crate) fn of(text: &str) -> JsonKind {
        match text.trim_start().bytes().next() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Array,
            Some(b'"') => JsonKind::String,
            Some(b't' | b'f') => JsonKind::Boolean,
            Some(b'n') => JsonKind::Null,
            _ => JsonKind::Number,
        }
    }

    /// The name that `json_typeof` gives.
    pub(crate) fn name(self) -> &'static str {
        match self {
            JsonKind::Object => "object",
            JsonKind::Array => "array",
            JsonKind::String => "string",
            JsonKind::Number => "number",
            JsonKind::Boolean => "boolean",
            JsonKind::Null => "null",
        }
    }
}

/// Members of the object `text`, in the order written; `None` if it is no object.
pub(crate) fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    let mut found = Vec::new();
    reader.skip_blank();
    reader.take(b'{')?;
    if reader.closes(b'}') {
        return Some(found);
    }
    loop {
        reader.skip_blank();
        let start = reader.at;
        reader.string()?;
        let key = string(&text[start..reader.at])?;
        reader.skip_blank();
        reader.take(b':')?;
        reader.skip_blank();
        let start = reader.at;
        reader.value(0)?;
        found.push((key, &text[start..reader.at]));
        if reader.closes(b'}') {
            return Some(found);
        }
        reader.take(b',')?;
    }
}

/// Elements of the array `text`; `None` if it is no array.
pub(crate) fn elements(text: &str) -> Option<Vec<&str>> {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    let mut found = Vec::new();
    reader.skip_blank();
    reader.take(b'[')?;
    if reader.closes(b']') {
        return Some(found);
    }
    loop {
        reader.skip_blank();
        let start = reader.at;
        reader.value(0)?;
        found.push(&text[start..reader.at]);
        if reader.closes(b']') {
            return Some(found);
        }
        reader.take(b',')?;
    }
}

/// What the quoted string `text` says; `None` if it is none.
pub(crate) fn string(text: &str) -> Option<String> {
    serde_json::from_str(text.trim()).ok()
}

/// `text` as a quoted string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The member `key` of an object.
pub(crate) fn member<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    members(text)?.into_iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// The element at `index` of an array, from its end if that is negative.
pub(crate) fn element(text: &str, index: i64) -> Option<&str> {
    let elements = elements(text)?;
    let at = if index < 0 { i64::try_from(elements.len()).ok()?.checked_add(index)? } else { index };
    elements.get(usize::try_from(at).ok()?).copied()
}

/// The value at the end of `path`: keys of objects, positions in arrays.
pub(crate) fn at_path<'a>(text: &'a str, path: &[String]) -> Option<&'a str> {
    path.iter().try_fold(text, |value, step| match JsonKind::of(value) {
        JsonKind::Object => member(value, step),
        JsonKind::Array => element(value, step.trim().parse().ok()?),
        _ => None,
    })
}

/// What `->>` gives for a value: a string without its quotes, NULL for null, the text of everything else.
pub(crate) fn as_text(value: &str) -> Option<String> {
    match JsonKind::of(value) {
        JsonKind::Null => None,
        JsonKind::String => string(value),
        _ => Some(value.trim().to_owned()),
    }
}

/// Whether `left` contains `right`: each member and each element of `right` somewhere at the same level of `left`.
pub(crate) fn contains(left: &str, right: &str) -> bool {
    match (JsonKind::of(left), JsonKind::of(right)) {
        (JsonKind::Object, JsonKind::Object) => members(right)
            .unwrap_or_default()
            .iter()
            .all(|(key, value)| member(left, key).is_some_and(|found| contains_at(found, value))),
        (JsonKind::Array, JsonKind::Array) => {
            let all = elements(left).unwrap_or_default();
            elements(right).unwrap_or_default().iter().all(|value| all.iter().any(|found| contains_at(found, value)))
        }
        // An array contains a scalar, at the top only.
        (JsonKind::Array, _) => elements(left).unwrap_or_default().iter().any(|found| is_equal_scalar(found, right)),
        _ => is_equal_scalar(left, right),
    }
}

fn contains_at(left: &str, right: &str) -> bool {
    JsonKind::of(left) == JsonKind::of(right) && contains(left, right)
}

fn is_equal_scalar(left: &str, right: &str) -> bool {
    match (JsonKind::of(left), JsonKind::of(right)) {
        (JsonKind::String, JsonKind::String) => string(left) == string(right),
        (JsonKind::Number, JsonKind::Number) => {
            left.trim() == right.trim() || left.trim().parse::<f64>().ok() == right.trim().parse::<f64>().ok()
        }
        (JsonKind::Boolean, JsonKind::Boolean) | (JsonKind::Null, JsonKind::Null) => left.trim() == right.trim(),
        _ => false,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Behind `close`, if that comes next.
    fn closes(&mut self, close: u8) -> bool {
        self.skip_blank();
        self.take(close).is_some()
    }

    /// Behind one value.
    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'{' => self.list(b'}', depth, true),
            b'[' => self.list(b']', depth, false),
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn list(&mut self, close: u8, depth: usize, has_keys: bool) -> Option<()> {
        self.at += 1;
        if self.closes(close) {
            return Some(());
        }
        loop {
            self.skip_blank();
            if has_keys {
                self.string()?;
                self.skip_blank();
                self.take(b':')?;
                self.skip_blank();
            }
            self.value(depth + 1)?;
            if self.closes(close) {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escaped = self.peek()?;
                    self.at += 1;
                    match escaped {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then(|| self.at += 4)?;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            let _ = self.take(b'+').or_else(|| self.take(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_from_json() {
        for text in [r#"{"a":[1,2.5e3,-0,true,false,null,"x\né\"y"]}"#, " 1 ", "[]", "{}", r#""""#, "-0.5E-7"] {
            assert!(is_json(text), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for text in
            ["", "{", "{a:1}", "[1,]", "01", "1.", "+1", "\"\t\"", "'a'", "nul", "1 2", "{\"a\":}", deep.as_str()]
        {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn values_are_found_with_their_own_text() {
        let text = r#"{"a": {"b": [10, 20.50, {"c": "x"}]}, "a ": 1, "n": null}"#;
        let path = |steps: &[&str]| at_path(text, &steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>());
        assert_eq!(path(&["a", "b", "1"]), Some("20.50"));
        assert_eq!(path(&["a", "b", "-1", "c"]), Some("\"x\""));
        assert_eq!(path(&["a", "x"]), None);
        assert_eq!(as_text("\"x\\n\""), Some("x\n".to_owned()));
        assert_eq!(as_text("null"), None);
        assert_eq!(member(r#"{"a":1,"a":2}"#, "a"), Some("2"));
    }

    #[test]
    fn containment_looks_at_each_level() {
        for (left, right, expected) in [
            (r#"{"a":1,"b":[1,2]}"#, r#"{"b":[2]}"#, true),
            (r#"{"a":1}"#, r#"{"a":2}"#, false),
            (r#"{"a":{"b":1}}"#, r#"{"b":1}"#, false),
            ("[1,[2]]", "[2]", false),
            ("[1,2]", "1", true),
            ("[1.0]", "[1]", true),
            ("1", "[1]", false),
        ] {
            assert_eq!(contains(left, right), expected, "{left} @> {right}");
        }
    }
}
