//! One column of a .parquet file, a document a row.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use sakiyomi_data::Source;

use crate::support::{read, refusal, texts};

/// A number, a text that may be missing, and a list of texts.
const COLUMNS: &str = "message rows {
    required int64 id;
    optional binary body (UTF8);
    repeated binary words (UTF8);
}";

/// Writes row groups of such rows.
fn write(path: &Path, compression: Compression, groups: &[&[Option<&[u8]>]]) {
    let properties = WriterProperties::builder().set_compression(compression).build();
    let schema = Arc::new(parse_message_type(COLUMNS).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, properties.into()).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..).take(rows.len()).collect();
        ids.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut body = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|text| text.to_vec().into()).collect();
        let levels: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
        body.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        body.close().unwrap();
        let mut words = group.next_column().unwrap().unwrap();
        let zeros = vec![0; rows.len()];
        words.typed::<ByteArrayType>().write_batch(&[], Some(&zeros), Some(&zeros)).unwrap();
        words.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn body(path: &Path) -> Source {
    Source { field: "body".to_owned(), ..Source::path(path) }
}

#[test]
fn rows_of_every_group_are_documents_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<String> = (0..200).map(|number| format!("text {number} é")).collect();
    let rows: Vec<Option<&[u8]>> = many.iter().map(|text| Some(text.as_bytes())).collect();
    let kinds = [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(Default::default())),
        ("zstd", Compression::ZSTD(Default::default())),
    ];
    for (name, compression) in kinds {
        let path = folder.path().join(format!("{name}.parquet"));
        write(&path, compression, &[&rows[..130], &[Some(b" \n")], &[], &rows[130..]]);
        assert_eq!(texts(&body(&path)), many, "{name}");
        let documents = read(&body(&path));
        assert_eq!((documents[0].place, documents[129].place, documents[130].place), (1, 130, 132), "{name}");
    }
    assert_eq!(texts(&body(folder.path())).len(), 4 * many.len(), "a folder of them");
}

#[test]
fn columns_that_hold_no_text_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, Compression::SNAPPY, &[&[Some(b"a"), Some(b"b")], &[Some(b"c"), None]]);
    let of = |field: &str| refusal(&Source { field: field.to_owned(), ..Source::path(&path) });
    assert!(of("text").contains("a.parquet: has no field \"text\"; its fields: \"id\", \"body\", \"words\""));
    assert!(of("id").contains("the column \"id\" does not hold one text a row"), "{}", of("id"));
    assert!(of("words").contains("the column \"words\" does not hold one text a row"), "{}", of("words"));
    assert!(
        of("body").contains("a.parquet: row 4: the field \"body\" is no string but null"),
        "{}",
        of("body")
    );
    write(&path, Compression::SNAPPY, &[&[Some(b"a"), Some(b"b\xff")]]);
    assert!(of("body").contains("row 2: is not UTF-8 at byte 1"), "{}", of("body"));
    write(&path, Compression::SNAPPY, &[&[Some(b" ")], &[]]);
    assert!(of("body").contains("no text in"), "{}", of("body"));
}

#[test]
fn damaged_files_are_one_line_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows = [Some(&b"some text"[..]), Some(b"more text"), Some(b"the last")];
    write(&path, Compression::SNAPPY, &[&rows, &rows]);
    let whole = fs_err::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs_err::write(&path, &whole[..length]).unwrap();
        let message = refusal(&body(&path));
        assert!(message.contains("a.parquet: is no whole .parquet file"), "{length}: {message}");
    }
    fs_err::write(&path, "just some words that are no parquet file").unwrap();
    assert!(refusal(&body(&path)).contains("a.parquet: is no whole .parquet file"));
    // Each byte altered: other text or one line.
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x55;
        fs_err::write(&path, &altered).unwrap();
        let read = sakiyomi_data::Documents::of(&body(&path)).unwrap().collect::<Result<Vec<_>, _>>();
        if let Err(error) = read {
            let message = error.to_string();
            assert!(message.contains("a.parquet") && !message.contains('\n'), "{at}: {message}");
        }
    }
}
