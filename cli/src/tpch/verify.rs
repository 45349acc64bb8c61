//! The expected answers: stored ones for scale 0.01 and 1, at other scales those on which the three placements agree.
//!
//! Comparing placements costs two more loads, so their common answers are kept in `DIR.answers` beside the database and
//! serve later runs on the same directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::answers::Answer;
use super::database::Database;
use super::queries::{QueryId, tpch_file, tpch_files};
use super::{Placement, TpchOptions, beside, measure, prepare};
use crate::files::{self, TemporaryFolder};
use crate::progress::note;

/// The folders of stored answers under `data/tpch/answers`, by name.
pub(crate) fn stored_answers() -> [(&'static str, [&'static str; 22]); 4] {
    [
        ("sf0.01", tpch_files!("answers/sf0.01", "csv")),
        ("sf0.01-changed", tpch_files!("answers/sf0.01-changed", "csv")),
        ("sf1", tpch_files!("answers/sf1", "csv")),
        ("sf1-changed", tpch_files!("answers/sf1-changed", "csv")),
    ]
}

/// The stored answer to `query` at scale 0.01. At every scale its columns say how they are to be compared.
///
/// # Errors
/// If it does not follow the format.
pub fn smallest(query: QueryId) -> Result<Answer> {
    let [(_, stored), ..] = stored_answers();
    Answer::parse(stored[usize::from(query.number()) - 1])
}

/// The answers to compare with, query 1 first, or `None` if there are none and none were to be made.
///
/// # Errors
/// If kept answers cannot be read, or the placements disagree.
pub fn expected(options: &TpchOptions, dir: &Path) -> Result<Option<Vec<Answer>>> {
    let name = format!("sf{}{}", options.scale, if options.changes { "-changed" } else { "" });
    if let Some((_, stored)) = stored_answers().into_iter().find(|(folder, _)| *folder == name) {
        return stored.into_iter().map(Answer::parse).collect::<Result<Vec<_>>>().map(Some);
    }
    let kept = beside(dir, if options.changes { "answers-changed" } else { "answers" });
    if kept.exists() {
        note(&format!("comparing with the answers kept in {}", kept.display()));
        return read_kept(&kept).map(Some);
    }
    if !options.compare_placements {
        note(&format!("no stored answers for scale {}: answers will not be checked", options.scale));
        return Ok(None);
    }
    let answers = compare_placements(options, dir)?;
    write_kept(&kept, &answers)?;
    Ok(Some(answers))
}

/// Loads each placement into a folder of its own and returns the answers all three agree on.
fn compare_placements(options: &TpchOptions, dir: &Path) -> Result<Vec<Answer>> {
    note(&format!(
        "no stored answers for scale {}: loading each placement once to compare them (--no-compare leaves this out)",
        options.scale
    ));
    let mut agreed: Option<Vec<Answer>> = None;
    for placement in Placement::ALL {
        note(&format!("placement {}:", placement.name()));
        let answers = answers_of(options, dir, placement)?;
        let Some(agreed) = &agreed else {
            agreed = Some(answers);
            continue;
        };
        for ((query, expected), answer) in QueryId::all().zip(agreed).zip(&answers) {
            expected.check(answer, query).with_context(|| {
                format!("query {} differs between placements fresh and {}", query.number(), placement.name())
            })?;
        }
    }
    agreed.context("no placement ran")
}

fn answers_of(options: &TpchOptions, dir: &Path, placement: Placement) -> Result<Vec<Answer>> {
    let temporary = beside(dir, &format!("compare-{}", placement.name()));
    let _folder = TemporaryFolder::claim(&temporary)?;
    let database = Database::open(&temporary, placement, options.memory_bytes)?;
    prepare(&database, &TpchOptions { placement, ..options.clone() })?;
    let all: Vec<_> = QueryId::all().collect();
    let measured = measure::run_queries(&database, &all, options.scale, 1, None)?;
    database.close()?;
    Ok(measured.into_iter().map(|query| query.answer).collect())
}

fn file_of(folder: &Path, query: QueryId) -> PathBuf {
    folder.join(format!("q{:02}.csv", query.number()))
}

fn read_kept(folder: &Path) -> Result<Vec<Answer>> {
    QueryId::all()
        .map(|query| {
            let path = file_of(folder, query);
            Answer::parse(&files::read_text(&path)?).with_context(|| format!("kept answer {}", path.display()))
        })
        .collect()
}

fn write_kept(folder: &Path, answers: &[Answer]) -> Result<()> {
    ensure!(answers.len() == 22);
    // Under another name first, so that a killed run leaves no half of a set.
    let unfinished = folder.with_extension("answers-unfinished");
    files::create_folder(&unfinished)?;
    for (query, answer) in QueryId::all().zip(answers) {
        files::write_text(&file_of(&unfinished, query), &answer.to_csv())?;
    }
    files::rename(&unfinished, folder)
}
