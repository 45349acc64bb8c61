//! The comparison must see what is wrong and forgive only what it says it forgives.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, StringArray};

use super::*;
use crate::tpch::queries::parse_query_list;

fn query(number: u8) -> QueryId {
    parse_query_list(&number.to_string()).unwrap()[0]
}

#[test]
fn csv_round_trip() {
    let csv = "a:text,b:int,c:decimal,d:float,e:date\n\
               \"x, \"\"y\"\"\",-3,-0.05,0.1,1996-02-29\n\
               \"\",,12.5,,\n";
    let answer = Answer::parse(csv).unwrap();
    assert_eq!(answer.rows[1][0], Value::Text(String::new()));
    assert_eq!(answer.rows[1][1], Value::Null);
    assert_eq!(answer.to_csv(), csv);
    for bad in
        ["a:text\nx\n", "a:int\n1,2\n", "a:int,b:int\n1\n", "a:colour\n", "a:date\n1996-02-30\n", "a:text\n\"x\n"]
    {
        assert!(Answer::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn stored_answers_agree_with_themselves_only() {
    for (folder, answers) in crate::tpch::stored_answers() {
        for (query, csv) in QueryId::all().zip(answers) {
            let answer = Answer::parse(csv).unwrap();
            answer.check(&answer, query).unwrap();
            assert!(!answer.columns.is_empty(), "{folder} {query:?}");
            if answer.row_count() > 1_000 {
                continue;
            }
            for (column, (_, kind)) in answer.columns.iter().enumerate() {
                let mut wrong = answer.clone();
                let Some(row) = wrong.rows.last_mut().filter(|row| row[column] != Value::Null) else { continue };
                row[column] = spoil(&row[column]);
                assert!(answer.check(&wrong, query).is_err(), "{folder} {query:?} column {column} {kind}");
            }
        }
    }
}

/// The smallest change of each kind that must be noticed.
fn spoil(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Int(value) => Value::Int(value + 1),
        Value::Decimal(unscaled, scale) => Value::Decimal(unscaled + 1, *scale),
        Value::Float(value, unit) => Value::Float(value * (1.0 + 2e-9) + 1e-300, *unit),
        Value::Date(days) => Value::Date(days + 1),
        Value::Text(text) => Value::Text(format!("{text} ")),
    }
}

#[test]
fn order_counts_where_the_query_asks_for_it() {
    let sorted = Answer::parse("c_count:int,custdist:int\n0,9\n7,5\n3,5\n").unwrap();
    let tie_swapped = Answer::parse("c_count:int,custdist:int\n0,9\n3,5\n7,5\n").unwrap();
    assert!(sorted.check(&tie_swapped, query(13)).is_err());
    let by_revenue = Answer::parse("n_name:text,revenue:decimal\n\"A\",2.50\n\"B\",2.5\n").unwrap();
    let swapped = Answer::parse("n_name:text,revenue:decimal\n\"B\",2.5\n\"A\",2.5\n").unwrap();
    by_revenue.check(&swapped, query(5)).unwrap();
}

#[test]
fn batches_are_read_by_the_expected_kinds() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("a", Arc::new(Int32Array::from(vec![Some(7), None]))),
        ("b", Arc::new(Decimal128Array::from(vec![2500, -1]).with_precision_and_scale(20, 4).unwrap())),
        ("c", Arc::new(Decimal128Array::from(vec![333_333, 1]).with_precision_and_scale(19, 6).unwrap())),
        ("d", Arc::new(Date32Array::from(vec![0, 1]))),
        ("e", Arc::new(StringArray::from(vec!["x", "y"]))),
        ("f", Arc::new(Float64Array::from(vec![1.0, 2.0]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let expected = Answer::parse(
        "a:int,b:decimal,c:float,d:date,e:text,f:float\n\
         7,0.25,0.3333333333,1970-01-01,\"x\",1.0\n\
         ,-0.0001,0.0000009,1970-01-02,\"y\",2.0\n",
    )
    .unwrap();
    let read = |like: &Answer| Answer::from_batches(&batch.schema(), std::slice::from_ref(&batch), Some(like));
    expected.check(&read(&expected).unwrap(), query(6)).unwrap();
    let off_by_more_than_a_digit = Answer::parse(&expected.to_csv().replace("0.3333333333", "0.333335")).unwrap();
    assert!(off_by_more_than_a_digit.check(&read(&expected).unwrap(), query(6)).is_err());
    let text_for_int =
        Answer::parse(&expected.to_csv().replace("e:text", "e:int").replace('"', "").replace(['x', 'y'], "1"));
    assert!(text_for_int.is_err() || read(&text_for_int.unwrap()).is_err());
}
