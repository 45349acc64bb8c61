//! Near names: which existing name a misspelt one probably meant.

/// The name of `known` that is nearest to `wrong`, if one is near enough to be worth suggesting: at most a third of
/// the letters differ (at least one may). Case is ignored; among equals the first wins.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let bound = (wrong.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let distance = edit_distance(&wrong, &name.to_lowercase());
        if distance <= bound && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Number of letters to insert, delete, replace or swap with their neighbour to turn `from` into `to` (Damerau, 1964,
/// restricted to one edit per place).
fn edit_distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row; to.len() + 1];
        for column in 1..=to.len() {
            let replaced = above[column - 1] + usize::from(from[row - 1] != to[column - 1]);
            current[column] = replaced.min(above[column] + 1).min(current[column - 1] + 1);
            let swapped = row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
            if swapped {
                current[column] = current[column].min(before[column - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, current);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_near_names_only() {
        let known = ["customer", "orders", "lineitem"];
        assert_eq!(nearest("custmer", known), Some("customer"));
        assert_eq!(nearest("ordres", known), Some("orders"));
        assert_eq!(nearest("LINEITEM", known), Some("lineitem"));
        assert_eq!(nearest("nation", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn counts_edits() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("ab", "ba"), 1);
    }
}
