//! Golden plans: each case of `schedule/golden.txt` is a table's shapes and the plan they lead to.
//!
//! A case is a line `name | idle_ms [force] | run rows@age_ms … | segment rows-marks … => plan`; `UPDATE_GOLDENFILES=1`
//! prints the file as it would be now.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use strata_oltp::schema::Column;
use strata_oltp::{ColumnId, SeqNo, TableId, TableSchema};

use super::*;

const GOLDEN: &str = include_str!("golden.txt");

fn row_part(activity: &str, runs: &str) -> RowPart {
    let column = Column { id: ColumnId(1), field: Field::new("id", DataType::Int64, false) };
    let mut words = activity.split_whitespace();
    let shape = |(at, text): (usize, &str)| {
        let (rows, age) = text.split_once('@').unwrap();
        RunShape {
            run: FileId(at as u64 + 1),
            file_bytes: 0,
            version_count: number(rows),
            key_range: (vec![0], vec![9]),
            age_ms: number(age),
        }
    };
    RowPart {
        table: Arc::new(TableSchema::new(TableId(1), 1, vec![column], vec![0]).unwrap()),
        runs: runs.split_whitespace().enumerate().map(shape).collect(),
        idle_ms: number(words.next().unwrap()),
        force: words.next() == Some("force"),
        watermark: SeqNo::ZERO,
    }
}

fn segments(text: &str) -> Vec<SegmentShape> {
    let shape = |(at, text): (usize, &str)| {
        let (rows, marks) = text.split_once('-').unwrap_or((text, "0"));
        let key = vec![at as u8];
        SegmentShape {
            segment: FileId(at as u64 + 101),
            rows: number(rows),
            marks: number(marks),
            key_range: (key.clone(), key),
        }
    };
    text.split_whitespace().enumerate().map(shape).collect()
}

fn number(text: &str) -> u64 {
    match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<u64>().unwrap() * 1000,
        None => text.parse().unwrap(),
    }
}

fn describe(plan: Option<ColdPlan>) -> String {
    let Some(plan) = plan else { return "nothing".to_owned() };
    let mut text = String::new();
    for (what, files) in [("convert", &plan.runs), ("rewrite", &plan.segments)] {
        if !files.is_empty() {
            let names: Vec<String> = files.iter().map(|file| file.0.to_string()).collect();
            write!(text, "{}{what} {}", if text.is_empty() { "" } else { ", " }, names.join(" ")).unwrap();
        }
    }
    text
}

#[test]
fn plans_are_the_golden_ones() {
    let mut now = String::new();
    for line in GOLDEN.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(now, "{line}").unwrap();
            continue;
        }
        let (case, _) = line.split_once(" =>").unwrap();
        let parts: Vec<&str> = case.split('|').collect();
        let planned = plan(&row_part(parts[1], parts[2]), &segments(parts[3]), &ScheduleOptions::default());
        writeln!(now, "{case} => {}", describe(planned)).unwrap();
    }
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        panic!("golden.txt should be:\n{now}");
    }
    assert_eq!(GOLDEN, now);
}

/// Whatever the shapes: runs are a prefix, segments exist and are distinct, and a forced plan leaves no run behind.
#[test]
fn plans_are_closed() {
    for seed in 0..2000_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let runs: Vec<String> = (0..next(6)).map(|_| format!("{}@{}", next(700_000), next(5000))).collect();
        let segments_text: Vec<String> = (0..next(9))
            .map(|_| {
                let rows = next(1_200_000) + 1;
                format!("{rows}-{}", next(rows + 1))
            })
            .collect();
        let activity = format!("{} {}", next(2000), if next(4) == 0 { "force" } else { "" });
        let (rows, shapes) = (row_part(&activity, &runs.join(" ")), segments(&segments_text.join(" ")));
        let Some(planned) = plan(&rows, &shapes, &ScheduleOptions::default()) else { continue };
        let oldest: Vec<FileId> = rows.runs.iter().take(planned.runs.len()).map(|run| run.run).collect();
        assert_eq!(planned.runs, oldest);
        let known: Vec<FileId> = shapes.iter().map(|shape| shape.segment).collect();
        assert!(planned.segments.iter().all(|segment| known.contains(segment)));
        assert!(planned.segments.is_sorted() && planned.segments.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(!planned.runs.is_empty() || !planned.segments.is_empty());
        assert!(!rows.force || rows.runs.is_empty() || planned.runs.len() == rows.runs.len());
    }
}
