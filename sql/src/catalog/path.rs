//! The search path: which schema a name without one means.
//!
//! A catalog knows the path that its statement reads names by, so that whatever is bound to a catalog, plans that are kept
//! included, is bound to a path. What the database itself stores as text (views, defaults) is bound when it is written:
//! there, a name without a schema is one of `public`, whatever the reader's path.

use std::sync::{Arc, Mutex, PoisonError};

use super::{CATALOG_NAME, Catalog, DEFAULT_SCHEMA, SYSTEM_SCHEMA, TableName};
use crate::error::{Error, Result, SqlState};
use crate::system;

/// Schema that stands for the search path where a name must have one: what is in it was not found.
pub(crate) const PATH_SCHEMA: &str = "_strata_path";

/// The path of a session that says nothing.
const DEFAULT_TEXT: &str = "\"$user\", public";

/// Schemas in which names without one are looked for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchPath {
    /// As SHOW shows it.
    text: String,
    names: Arc<[String]>,
}

impl Default for SearchPath {
    fn default() -> SearchPath {
        SearchPath { text: DEFAULT_TEXT.to_owned(), names: Arc::from([DEFAULT_SCHEMA.to_owned()]) }
    }
}

impl SearchPath {
    /// The path that a list of names, separated by commas, says.
    ///
    /// # Errors
    /// A text that is no such list.
    pub(crate) fn parse(text: &str) -> std::result::Result<SearchPath, &'static str> {
        let mut names = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, after) = match rest.strip_prefix('"') {
                Some(quoted) => {
                    let end = closing_quote(quoted).ok_or("a name in quotes has no end")?;
                    (quoted[..end].replace("\"\"", "\""), &quoted[end + 1..])
                }
                None => {
                    let end = rest.find(',').unwrap_or(rest.len());
                    (rest[..end].trim().to_lowercase(), &rest[end..])
                }
            };
            names.push(name);
            rest = match after.trim_start().strip_prefix(',') {
                Some(after) if !after.trim().is_empty() => after.trim_start(),
                None if after.trim().is_empty() => "",
                _ => return Err("schemas, separated by commas"),
            };
        }
        Ok(SearchPath::of(&names))
    }

    /// The path with these names.
    pub(crate) fn of(names: &[String]) -> SearchPath {
        let text: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        // There is one user, whose name is that of the schema of system tables and cannot be one of his own.
        let names: Vec<String> = names.iter().filter(|name| *name != "$user").cloned().collect();
        SearchPath { text: text.join(", "), names: names.into() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn is_plain(&self) -> bool {
        matches!(self.names.as_ref(), [only] if only == DEFAULT_SCHEMA)
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('"') {
        at += found;
        if !text[at + 1..].starts_with('"') {
            return Some(at);
        }
        at += 2;
    }
    None
}

fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// What a session made of a shared catalog for its path, so that the next statement finds the same one.
#[derive(Debug, Default)]
pub(crate) struct PathCache(Mutex<Option<(Arc<Catalog>, Arc<Catalog>)>>);

impl PathCache {
    /// `catalog` with names looked up by `path`.
    pub(crate) fn on(&self, catalog: Arc<Catalog>, path: &SearchPath) -> Arc<Catalog> {
        if path.is_plain() {
            return catalog;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((base, derived)) = known.as_ref()
            && Arc::ptr_eq(base, &catalog)
            && derived.path == path.names
        {
            return Arc::clone(derived);
        }
        let derived = Arc::new(catalog.with_path(path));
        *known = Some((catalog, Arc::clone(&derived)));
        derived
    }
}

impl Catalog {
    /// The same catalog with names looked up by `path`.
    pub(crate) fn with_path(self: &Arc<Self>, path: &SearchPath) -> Catalog {
        let home = Some(self.at_home());
        Catalog { path: Arc::clone(&path.names), home, ..Catalog::clone(self) }
    }

    /// Makes `catalog` look names up by `path`, unless it does.
    pub(crate) fn set_path(catalog: &mut Arc<Catalog>, path: &SearchPath) {
        if catalog.path != path.names {
            *catalog = Arc::new(catalog.with_path(path));
        }
    }

    /// The same catalog as text that the database stores means it: names without a schema are in `public`.
    pub(crate) fn at_home(self: &Arc<Self>) -> Arc<Catalog> {
        match &self.home {
            _ if matches!(self.path.as_ref(), [only] if only == DEFAULT_SCHEMA) => Arc::clone(self),
            Some(home) => Arc::clone(home),
            None => {
                let path = SearchPath::default().names;
                Arc::new(Catalog { path, home: None, ..Catalog::clone(self) })
            }
        }
    }

    /// Names looked up as in `other`.
    pub(crate) fn on_path_of(self: &Arc<Self>, other: &Catalog) -> Arc<Catalog> {
        if self.path == other.path {
            return Arc::clone(self);
        }
        Arc::new(Catalog { path: Arc::clone(&other.path), home: Some(self.at_home()), ..Catalog::clone(self) })
    }

    /// Schemas of the path that exist.
    pub(crate) fn path_schemas(&self) -> impl Iterator<Item = &str> {
        self.path.iter().map(String::as_str).filter(|name| *name == SYSTEM_SCHEMA || self.schemas.contains_key(*name))
    }

    /// The schema that things without one are created in.
    pub(crate) fn creation_schema(&self) -> Option<&str> {
        self.path_schemas().next()
    }

    /// The table, view, sequence or index that a name means: without a schema, the first on the path. One that is not
    /// there gets the schema it would be created in.
    ///
    /// # Errors
    /// As [`TableName::from_parts`].
    pub(crate) fn locate(&self, parts: &[String]) -> Result<TableName> {
        self.locate_beside(parts, None)
    }

    /// [`Catalog::locate`] where `own` is about to be there too.
    ///
    /// # Errors
    /// As [`TableName::from_parts`].
    pub(crate) fn locate_beside(&self, parts: &[String], own: Option<&TableName>) -> Result<TableName> {
        let [name] = parts else { return TableName::from_parts(parts) };
        let has = |schema: &str| {
            own.is_some_and(|own| own.schema == schema && own.table == *name)
                || schema == SYSTEM_SCHEMA && system::TABLE_NAMES.contains(&name.as_str())
                || self.schemas.get(schema).is_some_and(|relations| relations.kind_of(name).is_some())
                || self.has_key(schema, name)
        };
        let found = self.path_schemas().find(|schema| has(schema));
        let schema = found.or_else(|| self.creation_schema()).unwrap_or(PATH_SCHEMA);
        Ok(TableName { schema: schema.to_owned(), table: name.clone() })
    }

    /// Whether a primary key has the name, which is that of an index too.
    fn has_key(&self, schema: &str, name: &str) -> bool {
        let mut tables = self.tables_of(schema).into_iter().flatten();
        tables.any(|table| !table.has_hidden_key() && table.key_name() == *name)
    }

    /// The name of something that is about to be created.
    ///
    /// # Errors
    /// 3F000 if it has no schema and none of the path exists; as [`TableName::from_parts`].
    pub(crate) fn locate_new(&self, parts: &[String]) -> Result<TableName> {
        let [name] = parts else { return TableName::from_parts(parts) };
        let Some(schema) = self.creation_schema() else {
            return Err(Error::new(SqlState::UndefinedSchema, format!("no schema to create {name} in"))
                .with_detail(format!("none of the schemas in the search path ({}) exists", self.path.join(", ")))
                .with_hint(format!("write {CATALOG_NAME}.schema.{name}, or SET search_path")));
        };
        Ok(TableName { schema: schema.to_owned(), table: name.clone() })
    }

    /// Whether there is a table, view, sequence or index of this name.
    pub(crate) fn has(&self, name: &TableName) -> bool {
        name.schema == SYSTEM_SCHEMA
            || self.schemas.get(&name.schema).is_some_and(|relations| relations.kind_of(&name.table).is_some())
    }

    /// Whether the name alone means it.
    pub(crate) fn is_visible(&self, name: &TableName) -> bool {
        self.locate(std::slice::from_ref(&name.table)).is_ok_and(|found| found == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_shown() {
        let names = |text: &str| SearchPath::parse(text).map(|path| path.names.join("|"));
        assert_eq!(names("a, B ,\"C d\"\"e\",\"$user\"").unwrap(), "a|b|C d\"e");
        assert_eq!(SearchPath::parse("App, \"Odd\"").unwrap().text(), "app, \"Odd\"");
        assert_eq!(names("").unwrap(), "");
        assert_eq!(SearchPath::parse(DEFAULT_TEXT).unwrap(), SearchPath::default());
        for wrong in ["a,", "\"a", "a,,b", "\"a\" b"] {
            assert!(names(wrong).is_err() || names(wrong).unwrap().contains("||"), "{wrong}");
        }
    }
}
