//! `strata sql`: statements from the command line, a file, a pipe, or typed at a prompt.
//!
//! Results go to standard output, errors to standard error. A script stops at its first error and the exit code tells;
//! the prompt goes on. Ctrl-C abandons the running statement, never the database.

use std::borrow::Cow;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use reedline::{
    FileBackedHistory, Prompt, PromptEditMode, PromptHistorySearch, Reedline, Signal, ValidationResult, Validator,
};
use strata_sql::{Engine, EngineOptions, Session, StatementResult, parse_script};
use tokio::runtime::Runtime;

use crate::files;
use crate::output::{Format, Output};
use crate::progress::{Timer, grouped, note};

/// What `strata sql` was asked for.
#[derive(Clone, Debug)]
pub struct ShellOptions {
    /// The database; in memory if none.
    pub dir: Option<PathBuf>,
    /// Scripts given with `-c`, run in order.
    pub commands: Vec<String>,
    /// A script file, run after them.
    pub file: Option<PathBuf>,
    /// Form of results.
    pub format: Format,
    /// The memory budget of the engine.
    pub memory_bytes: u64,
}

/// Runs scripts, or the prompt if none were given.
///
/// # Errors
/// The first statement of a script that fails, or if the database cannot be opened.
pub fn run(options: &ShellOptions) -> Result<()> {
    let runtime = Runtime::new().context("cannot start the query threads")?;
    let engine_options = EngineOptions { memory_budget_bytes: options.memory_bytes, ..EngineOptions::default() };
    let engine = match &options.dir {
        Some(dir) => Engine::open(dir, engine_options)?,
        None => Engine::open_in_memory(engine_options)?,
    };
    let shell = Shell { runtime, output: Output::to_stdout(options.format) };
    let mut session = engine.session();
    let result = shell.run_all(&mut session, options);
    drop(session);
    let closed = engine.close();
    result?;
    Ok(closed?)
}

struct Shell {
    runtime: Runtime,
    output: Output,
}

impl Shell {
    fn run_all(&self, session: &mut Session, options: &ShellOptions) -> Result<()> {
        for command in &options.commands {
            self.script(session, command)?;
        }
        if let Some(file) = &options.file {
            self.script(session, &files::read_text(file)?)?;
        }
        if !options.commands.is_empty() || options.file.is_some() {
            return Ok(());
        }
        if !stdin().is_terminal() {
            return self.script(session, &files::read_text(Path::new("-"))?);
        }
        self.prompt(session, options.dir.as_deref())
    }

    /// Runs the statements of `text` one after the other, stopping at the first error.
    fn script(&self, session: &mut Session, text: &str) -> Result<()> {
        for statement in parse_script(text)? {
            self.runtime.block_on(async {
                let work = async {
                    match session.run(&statement).await? {
                        StatementResult::Rows(rows) => {
                            let count = self.output.write(rows).await?;
                            Ok(format!("({} {})", grouped(count), if count == 1 { "row" } else { "rows" }))
                        }
                        StatementResult::Affected { tag, count: Some(count) } => Ok(format!("{tag} {count}")),
                        StatementResult::Affected { tag, count: None } => Ok(tag.to_string()),
                    }
                };
                tokio::select! {
                    done = work => done.map(|line| self.tell(&line)),
                    _ = tokio::signal::ctrl_c() => bail!("cancelled"),
                }
            })?;
        }
        Ok(())
    }

    /// What a statement did, where only people read it.
    fn tell(&self, line: &str) {
        if self.output.is_for_people() {
            say(line);
        }
    }

    fn prompt(&self, session: &mut Session, dir: Option<&Path>) -> Result<()> {
        say(&match dir {
            Some(dir) => format!("Strata on {}. Statements end with ';'; \\? lists commands.", dir.display()),
            None => "Strata in memory: nothing is kept. Statements end with ';'; \\? lists commands.".to_string(),
        });
        let mut editor = Reedline::create().with_validator(Box::new(Complete));
        if let Some(history) = history() {
            editor = editor.with_history(Box::new(history));
        }
        let mut timing = false;
        loop {
            let state = PromptState { open: session.in_transaction(), failed: session.in_failed_transaction() };
            let line = match editor.read_line(&state).context("cannot read from the terminal")? {
                Signal::Success(line) => line,
                Signal::CtrlD => return Ok(()),
                _ => continue,
            };
            let timer = Timer::start();
            let result = match line.trim() {
                "" => continue,
                "\\q" | "quit" | "exit" => return Ok(()),
                "\\?" | "help" => {
                    say(HELP);
                    continue;
                }
                "\\timing" => {
                    timing = !timing;
                    say(if timing { "timing is on" } else { "timing is off" });
                    continue;
                }
                "\\d" => self.script(session, LIST_TABLES),
                command if command.starts_with('\\') => {
                    note(&format!("unknown command {command}; \\? lists commands"));
                    continue;
                }
                sql => self.script(session, sql),
            };
            if let Err(error) = result {
                note(&error_text(&error));
            } else if timing {
                say(&format!("{:.1} ms", timer.seconds() * 1000.0));
            }
        }
    }
}

const HELP: &str = "\\d  tables    \\timing  show times    \\q  leave    Ctrl-C  abandon a statement";

const LIST_TABLES: &str = "select table_schema, table_name, table_type from information_schema.tables \
                           where table_schema <> 'information_schema' order by 1, 2";

/// An error with all it knows: SQLSTATE, detail and hint where it comes from the engine, its causes else.
#[must_use]
pub fn error_text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<strata_sql::Error>() {
        Some(sql) => {
            let report = sql.report();
            let context = error.to_string();
            // A context added on the way says where it happened.
            if context == sql.to_string() { report } else { format!("{context}\n{report}") }
        }
        None => format!("error: {error:#}"),
    }
}

fn say(line: &str) {
    println!("{line}");
}

/// Kept in the home folder, like those of other shells; none if there is no home.
fn history() -> Option<FileBackedHistory> {
    const ENTRIES_MAX: usize = 10_000;
    let path = std::env::home_dir()?.join(".strata_history");
    FileBackedHistory::with_file(ENTRIES_MAX, path).ok()
}

/// Input is complete at a `;` outside quotes and comments, or when it is a command of the shell.
struct Complete;

impl Validator for Complete {
    fn validate(&self, line: &str) -> ValidationResult {
        let text = line.trim();
        let is_command = text.is_empty() || text.starts_with('\\') || matches!(text, "quit" | "exit" | "help");
        if is_command || ends_statement(text) { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

/// Whether the last thing in `text` outside quotes and comments is a `;`.
fn ends_statement(text: &str) -> bool {
    let mut ended = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if let Some(comment) = rest.strip_prefix("--") {
            comment.find('\n').map(|end| &comment[end..])
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map(|end| &comment[end + 2..])
        } else if first == '\'' || first == '"' {
            ended = false;
            rest[1..].find(first).map(|end| &rest[end + 2..])
        } else {
            if !first.is_whitespace() {
                ended = first == ';';
            }
            Some(&rest[first.len_utf8()..])
        };
        let Some(skipped) = skipped else {
            // A line comment may run to the end; a quote or a block comment may not.
            return ended && rest.starts_with("--");
        };
        rest = skipped;
    }
    ended
}

struct PromptState {
    open: bool,
    failed: bool,
}

impl Prompt for PromptState {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("strata")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        // As in psql: a star inside a transaction, an exclamation mark in one that failed.
        Cow::Borrowed(match (self.failed, self.open) {
            (true, _) => "!> ",
            (false, true) => "*> ",
            (false, false) => "> ",
        })
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("   ...> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search: {}) ", search.term))
    }
}

/// Refuses what only a server can do, until there is one.
///
/// # Errors
/// Always, if a URL was given.
pub fn refuse_url(url: Option<&str>) -> Result<()> {
    ensure!(url.is_none(), "--url needs the Strata server, which is not built yet; give --dir to open a directory");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_a_semicolon_outside_quotes() {
        for complete in
            ["select 1;", "select ';';", "select 1; -- done", "a; /* x */", "select \"a;b\" ;\n", "x 'it''s';"]
        {
            assert!(ends_statement(complete), "{complete}");
        }
        for open in ["select 1", "select ';", "select ';'", "-- ;", "select 1; select", "/* ; ", "a; 'b'", "a; /*"] {
            assert!(!ends_statement(open), "{open}");
        }
    }
}
