//! Suggests known names for an unknown one, for messages.

/// Names to list if none is similar.
const LISTED: usize = 8;
/// Similar names to list.
const NEAR: usize = 3;
/// With more names than this, none is compared: that could take minutes.
const COMPARED: usize = 200_000;

/// The end of a message about an unknown name: the most similar known names, or else the first ones.
pub fn suggest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let folded = wanted.to_lowercase();
    let most = (folded.chars().count() / 3).max(1);
    let mut close: Vec<(usize, &str)> = known
        .iter()
        .take(COMPARED)
        .filter(|name| name.len() <= 4 * wanted.len() + 16)
        .filter_map(|name| {
            let other = name.to_lowercase();
            let distance = strsim::osa_distance(&folded, &other);
            let within = folded.len() >= 3 && other.len() >= 3 && (other.contains(&folded) || folded.contains(&other));
            (distance <= most || within).then_some((distance, *name))
        })
        .collect();
    close.sort();
    if !close.is_empty() {
        let names: Vec<&str> = close.into_iter().take(NEAR).map(|(_, name)| name).collect();
        return format!("near: {}", names.join(", "));
    }
    match known.len() {
        0 => "there are none".to_owned(),
        n if n > LISTED => format!("there are {}, and {} more", known[..LISTED].join(", "), n - LISTED),
        _ => format!("there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn nearest_first_or_what_there_is() {
        let known = ["n_genes", "n_counts", "tissue", "cell_type"];
        assert_eq!(suggest("n_gens", known.into_iter()), "near: n_genes");
        assert_eq!(suggest("Tissue", known.into_iter()), "near: tissue");
        assert_eq!(suggest("zebra", known.into_iter()), "there are n_genes, n_counts, tissue, cell_type");
        assert_eq!(suggest("lung", ["left lung", "liver"].into_iter()), "near: left lung");
        assert_eq!(suggest("x", std::iter::empty()), "there are none");
    }
}
