//! Records of the corpus that are not run, or whose outcome is accepted: groups with a name, conditions and a reason.
//!
//! The list is [`exclusions.txt`](../../exclusions.txt). A line is `name | conditions | reason`; the conditions are
//! separated by ` & ` and must all hold:
//!
//! * `path=TEXT`, `sql=TEXT`: file name or statement contains the text; the record is not run.
//! * `error=CODE`: Strata refused the statement with this SQLSTATE where the corpus expects a result.
//!
//! Records that the corpus itself marks for other engines only are counted apart, because they are no tests of ours.

/// All groups.
pub struct Exclusions {
    groups: Vec<Group>,
}

struct Group {
    name: String,
    path: Vec<String>,
    sql: Vec<String>,
    error: Option<String>,
}

impl Exclusions {
    /// The list of this package.
    ///
    /// # Errors
    /// The line that is not understood.
    pub fn load() -> Result<Exclusions, String> {
        Exclusions::parse(include_str!("../../exclusions.txt"))
    }

    fn parse(text: &str) -> Result<Exclusions, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Exclusions { groups: lines.map(group).collect::<Result<_, _>>()? })
    }

    /// The group that keeps a statement of a file from being run.
    pub fn before(&self, path: &str, sql: &str) -> Option<&str> {
        self.find(path, sql, None)
    }

    /// The group that accepts a refusal.
    pub fn after(&self, path: &str, sql: &str, sqlstate: &str) -> Option<&str> {
        self.find(path, sql, Some(sqlstate))
    }

    fn find(&self, path: &str, sql: &str, sqlstate: Option<&str>) -> Option<&str> {
        let holds = |group: &&Group| {
            group.error.as_deref() == sqlstate
                && group.path.iter().all(|part| path.contains(part))
                && group.sql.iter().all(|part| sql.contains(part))
        };
        self.groups.iter().find(holds).map(|group| group.name.as_str())
    }
}

fn group(line: &str) -> Result<Group, String> {
    let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let [name, conditions, reason] = parts[..] else {
        return Err(format!("not of the form name | conditions | reason: {line}"));
    };
    if reason.is_empty() {
        return Err(format!("no reason is given: {line}"));
    }
    let mut group = Group { name: name.to_owned(), path: Vec::new(), sql: Vec::new(), error: None };
    for condition in conditions.split(" & ") {
        match condition.split_once('=') {
            Some(("path", text)) => group.path.push(text.to_owned()),
            Some(("sql", text)) => group.sql.push(text.to_owned()),
            Some(("error", code)) => group.error = Some(code.to_owned()),
            _ => return Err(format!("{condition} is no condition: {line}")),
        }
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_match_what_they_say() {
        let list = "# why\n\na | path=evidence/ & sql=TRIGGER | none\nb | error=22012 | as PostgreSQL\n";
        let list = Exclusions::parse(list).unwrap();
        assert_eq!(list.before("evidence/x.test", "CREATE TRIGGER"), Some("a"));
        assert_eq!(list.before("random/x.test", "CREATE TRIGGER"), None);
        assert_eq!(list.after("random/x.test", "SELECT 1/0", "22012"), Some("b"));
        assert_eq!(list.after("random/x.test", "SELECT 1/0", "22003"), None);
        assert!(Exclusions::parse("a | path=x | ").is_err() && Exclusions::parse("a | size=x | y").is_err());
    }

    #[test]
    fn the_list_is_well_formed() {
        Exclusions::load().unwrap();
    }
}
