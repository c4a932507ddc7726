use super::*;

fn parsed(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("/etc/cells"))
}

#[test]
fn keys_are_options_and_views_keep_their_order() {
    let text = "\
batch_size = 512            # a comment
obs = [\"cell_type\", \"donor\"]
split = { train = 0.8, val = 0.2 }
cache = true
allow_other = false
log = 'mount.log'
drop-last = true
[view.val]
order = \"sequential\"
drop_last = false
[view.train]
where = 'tissue == \"lung\"'
rows = \"train.txt\"
seed = 0x10
";
    let config = parsed(text).unwrap_or_else(|error| panic!("{error:?}"));
    let options = &config.options;
    assert_eq!(options.obs, Some(vec!["cell_type".into(), "donor".into()]));
    assert_eq!(options.split, values::fractions("train=0.8,val=0.2").ok());
    assert_eq!((options.cache, options.allow_other, options.epochs), (true, false, 100));
    assert_eq!(options.log.as_deref(), Some(Path::new("/etc/cells/mount.log")));
    let all = &config.views.all;
    assert_eq!((all.batch_size, all.drop_last), (Some(512), Some(true)));
    let [(val, of_val), (train, of_train)] = config.views.views.as_slice() else { panic!() };
    assert_eq!((val.as_str(), train.as_str()), ("val", "train"));
    assert_eq!(of_val.drop_last, Some(false));
    assert_eq!((of_train.seed, of_train.rows.as_deref()), (Some(16), Some(Path::new("/etc/cells/train.txt"))));
    assert_eq!(of_train.filter.as_ref().map(|filter| filter.text()), Some("tissue == \"lung\""));
}

#[test]
fn stores_are_beside_the_file() {
    let stores = parsed("stores = ['a.h5ad', '/b.zarr', 's3://bucket/c.zarr']").map(|config| config.stores);
    assert_eq!(stores, Ok(["/etc/cells/a.h5ad", "/b.zarr", "s3://bucket/c.zarr"].map(PathBuf::from).into()));
    assert!(is_source(Path::new("/etc/cells.toml")) && !is_source(Path::new("cells.h5ad")));
}

#[test]
fn errors_have_a_place() {
    for (text, at, word) in [
        ("stores = 'a.h5ad'", 9, "a list of paths"),
        ("seed = 1\nstores = []", 18, "a list of paths"),
        ("stores = [1]", 9, "a list of paths"),
        ("bach_size = 1", 0, "near: batch_size"),
        ("seed = 1\nbatch_size = 0", 9, "1..=16777216"),
        ("x = [1]", 0, "one value"),
        ("cache = 1", 0, "true or false"),
        ("config = 'a'", 0, "no option"),
        ("[view.train]\nformat = 'npy'", 13, "no option is called format"),
        ("[view]\ntrain = 1", 7, "[view.train]"),
        ("[view.a]\nwhere = 'x = 1'", 9, "=="),
        ("seed = ", 7, ""),
        ("split = { a = 0.9, b = 0.2 }", 0, "above 1"),
    ] {
        match parsed(text) {
            Err((found, cause)) => assert!(found == at && cause.contains(word), "{text}: {found} {cause}"),
            Ok(config) => panic!("{text}: {config:?}"),
        }
    }
}

#[test]
fn names_may_hold_commas() {
    let config = parsed("obs = ['a,b', 'c']\nwith = ['layers/x,y']\ngenes = ['g,1', 'g2']\n").unwrap();
    let (obs, with, genes) = (config.options.obs, config.options.with, config.options.genes);
    assert_eq!(obs, Some(vec!["a,b".into(), "c".into()]));
    assert_eq!(Ok(with), values::further("layers/x,y").map(|name| vec![name]));
    assert_eq!(genes, Some(crate::collection::genes::Genes::Names(vec!["g,1".into(), "g2".into()])));
    // A string is parsed as on the command line.
    assert_eq!(parsed("obs = 'a,b'").unwrap().options.obs, Some(vec!["a".into(), "b".into()]));
    assert_eq!(parsed("obs = []").unwrap().options.obs, Some(Vec::new()));
}

/// serde knows each option of the command line, at the top level and in views.
#[test]
fn every_option_can_stand_in_a_file() {
    let of_view = names_of(SamplingArgs::augment_args(Command::new("view")));
    let all = names_of(OptionArgs::augment_args(Command::new("file")));
    assert!(of_view.len() == 18 && all.len() > 35, "{} {}", of_view.len(), all.len());
    for (names, head) in [(&all, ""), (&of_view, "[view.a]\n")] {
        for name in names {
            // No option accepts a date.
            let (_, cause) = parsed(&format!("{head}{name} = 1979-05-27")).expect_err(name);
            assert!(cause.starts_with(&format!("{name}: ")) && !cause.contains("unknown"), "{cause}");
        }
    }
}
