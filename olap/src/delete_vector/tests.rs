//! Marks against a position-at-a-time oracle, and their file against its worked example.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Mark(u32, u64),
    Settle(u64),
    Resolve(u64),
    Reload(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u32, 1..60_u64).prop_map(|(position, seqno)| Step::Mark(position, seqno)),
        1 => (0..60_u64).prop_map(Step::Settle),
        3 => (0..60_u64).prop_map(Step::Resolve),
        1 => (0..60_u64).prop_map(Step::Reload),
    ]
}

fn reload(marks: &Marks) -> Marks {
    let contents = marks.prefix(SeqNo::MAX);
    let (id, segment, path) = (FileId(9), FileId(4), Path::new("x.marks"));
    let decoded = Contents::decode(&contents.encode(id, segment), path, id, segment, 40).unwrap();
    decoded.into_marks(marks.sealed())
}

proptest! {
    #[test]
    fn marks_are_what_a_map_says(steps in prop::collection::vec(step(), 1..60)) {
        let mut marks = Marks::default();
        let mut oracle: BTreeMap<u32, u64> = BTreeMap::new();
        // Snapshots and new marks stay above what was settled.
        let mut floor = 0;
        for step in steps {
            match step {
                Step::Mark(position, seqno) => {
                    let seqno = seqno + floor;
                    marks.mark(position, SeqNo(seqno));
                    let earliest = oracle.entry(position).or_insert(seqno);
                    *earliest = (*earliest).min(seqno);
                }
                Step::Settle(watermark) => {
                    floor = floor.max(watermark);
                    marks.settle(SeqNo(watermark));
                }
                Step::Resolve(at) | Step::Reload(at) => {
                    if matches!(step, Step::Reload(_)) {
                        marks = reload(&marks);
                    }
                    let at = at + floor;
                    let expected: RoaringBitmap = oracle.iter().filter(|m| *m.1 <= at).map(|m| *m.0).collect();
                    prop_assert_eq!(&*marks.marks_at(SeqNo(at)), &expected);
                    for position in 0..40 {
                        let is_hidden = marks.mark_of(position).is_some_and(|mark| mark.0 <= at);
                        prop_assert_eq!(is_hidden, expected.contains(position));
                    }
                    prop_assert_eq!(marks.count(), oracle.len() as u64);
                }
            }
        }
    }
}

#[test]
fn a_snapshot_shares_its_answer_until_a_mark_below_it_arrives() {
    let marks = Marks::default();
    marks.mark(3, SeqNo(5));
    let at_six = marks.marks_at(SeqNo(6));
    assert!(Arc::ptr_eq(&at_six, &marks.marks_at(SeqNo(5))));
    marks.mark(4, SeqNo(7));
    assert!(Arc::ptr_eq(&at_six, &marks.marks_at(SeqNo(6))));
    assert_eq!(marks.marks_at(SeqNo(7)).len(), 2);
}

#[test]
fn the_worked_example_of_the_format() {
    let marks = Marks::default();
    marks.mark(1, SeqNo(5));
    marks.settle(SeqNo(6));
    marks.mark(7, SeqNo(200));
    let bytes = marks.prefix(SeqNo::MAX).encode(FileId(9), FileId(4));
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let format = include_str!("../segment/FORMAT.md");
    let example = format.split("```hex").nth(2).and_then(|rest| rest.split("```").next()).expect("an example");
    assert_eq!(hex.join(" "), example.split_whitespace().collect::<Vec<_>>().join(" "));
}
