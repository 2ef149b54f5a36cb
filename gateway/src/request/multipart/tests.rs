use proptest::prelude::*;

use super::*;

const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"--x y\"";

fn text(name: &str, value: &str) -> String {
    format!("----x y\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(name: &str, content: &str) -> String {
    format!(
        "----x y\r\ncontent-disposition: form-data; filename=\"a \\\"b\\\".mp3\"; name={name}\r\nContent-Type: audio/mpeg\r\n\r\n{content}\r\n"
    )
}

fn read(body: &(impl AsRef<[u8]> + ?Sized), size: usize) -> Result<MultipartReader, String> {
    let mut reader = MultipartReader::new(TYPE).unwrap();
    for piece in body.as_ref().chunks(size) {
        reader.push(piece).map_err(|error| error.message)?;
    }
    Ok(reader)
}

#[test]
fn fields_are_read_and_files_are_skipped() {
    let body = [
        text("model", "whisper-1"),
        file("file", "sound\r\n--x\r\n----x"),
        text("prompt", ""),
        "----x y--\r\n".to_owned(),
    ]
    .concat();
    for size in [1, 2, 3, 7, 64, body.len()] {
        let reader = read(&body, size).unwrap();
        assert!(reader.is_complete(), "in pieces of {size}");
        let (model, range) = reader.text("model").unwrap();
        assert_eq!((model, &body[range]), ("whisper-1", "whisper-1"), "in pieces of {size}");
        assert_eq!(reader.text("prompt").unwrap().0, "", "in pieces of {size}");
        let content =
            PartContent::File { filename: "a \"b\".mp3".to_owned(), content_type: Some("audio/mpeg".to_owned()) };
        assert_eq!(reader.parts()[1], FormPart { name: "file".to_owned(), content }, "in pieces of {size}");
        assert_eq!(reader.files(), 1, "in pieces of {size}");
    }
}

#[test]
fn malformed_forms_are_errors() {
    let cases = [
        ("----x y\r\ncontent-type: a\r\n\r\nx\r\n----x y--".to_owned(), "no header content-disposition"),
        ("----x y what\r\n".to_owned(), "followed by neither"),
        (format!("----x y\r\na: {}", "b".repeat(20_000)), "head of a part is longer"),
        (text("prompt", &"p".repeat(2 << 20)), "text fields are larger"),
        (text("n", "1").repeat(300), "at most 256 parts"),
    ];
    for (body, message) in cases {
        let error = read(&body, 1000).map(|_| ()).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    for kind in
        ["application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=a"]
    {
        assert!(MultipartReader::new(kind).is_err(), "{kind}");
    }
    assert!(!read(&text("model", "x"), 10).unwrap().is_complete());
}

proptest! {
    #[test]
    fn forms_are_read_alike_however_they_are_cut(
        values in proptest::collection::vec("[a-c\r\n-]{0,12}", 1..6),
        content in "[\r\nx -]{0,300}",
        size in 1..50_usize,
    ) {
        // A line that begins with the boundary ends a part, so no value has one.
        let fields: String = values.iter().map(|value| text("v", value)).collect();
        let body = fields + &file("file", &content) + &text("last", "z") + "----x y--";
        let (whole, cut) = (read(&body, body.len()).unwrap(), read(&body, size).unwrap());
        prop_assert_eq!(whole.parts(), cut.parts());
        prop_assert!(cut.is_complete());
        if !content.contains("----x y") {
            let texts: Vec<_> = cut.parts().iter().filter_map(|part| match &part.content {
                PartContent::Text(text, range) => { assert_eq!(&body[range.clone()], text); Some(text.clone()) }
                PartContent::File { .. } => None,
            }).collect();
            prop_assert_eq!(&texts[..values.len()], &values[..]);
            prop_assert_eq!(&texts[values.len()..], &["z".to_owned()]);
        }
    }
}

#[test]
fn a_field_on_which_the_gateway_acts_stands_once_and_has_one_name() {
    let large = "x".repeat(100_000);
    let head = |disposition: &str| format!("----x y\r\n{disposition}\r\n\r\ngpt\r\n");
    let disposition = "Content-Disposition: form-data";
    let ambiguous = [
        text("model", "other"),
        text("Model", "other"),
        text(" model", "other"),
        file("model", "other"),
        head(&format!("{disposition}; name=x; name=model")),
        head(&format!("{disposition}; name=x; NAME*=utf-8''model")),
        head(&format!("{disposition}; name*=utf-8''model")),
        head(&format!("{disposition}; name=x\r\n{disposition}; name=model")),
    ];
    let last = "----x y--\r\n";
    for second in &ambiguous {
        for between in [String::new(), file("file", &large), text("prompt", "p")] {
            let body = [&text("model", "whisper-1"), &between, second, last].concat();
            for size in [1, 64, body.len()] {
                assert!(read(&body, size).is_err(), "{second:?} in pieces of {size}");
            }
        }
    }
    let twice = [text("model", "m"), text("stream", "true"), text("include[]", "a"), text("include[]", "b")].concat();
    assert!(read(&(twice.clone() + last), 64).is_ok());
    assert!(read(&(twice + &text("stream", "false") + last), 64).is_err());
}

#[test]
fn fields_on_which_the_gateway_acts_and_heads_are_utf_8() {
    let replaced = |form: String| -> Vec<u8> {
        form.bytes().flat_map(|byte| if byte == b'#' { vec![0xc3, 0x28] } else { vec![byte] }).collect()
    };
    let last = "----x y--\r\n";
    let refused = [
        (text("model", "whisper#"), "model: expected a text in UTF-8"),
        (text("stream", "#"), "stream: expected a text in UTF-8"),
        (text("mod#", "x"), "head of a part in UTF-8"),
        (file("fi#e", "x"), "head of a part in UTF-8"),
    ];
    for (part, message) in refused {
        let body = replaced(text("model", "m").repeat(usize::from(!part.contains("model"))) + &part + last);
        for size in [1, 64, body.len()] {
            let error = read(&body, size).map(|_| ()).unwrap_err();
            assert!(error.contains(message), "{part:?} in pieces of {size}: {error}");
        }
    }
    let body = replaced(text("model", "m") + &text("prompt", "a#b") + &file("file", "#") + last);
    let reader = read(&body, 7).unwrap();
    assert!(reader.has_broken_text());
    assert_eq!(reader.text("prompt").unwrap().0, "a\u{fffd}(b");
    assert!(!read(&(text("prompt", "\u{fffd}") + last), 7).unwrap().has_broken_text());
}

#[test]
fn a_model_in_the_path_is_set_in_the_form() {
    let last = "----x y--\r\n";
    let (large, prompt) = (file("file", &"x".repeat(1000)), text("prompt", "p"));
    let forms = [
        (
            large.clone() + &text("model", "gpt") + &prompt + last,
            large.clone() + &text("model", "deployed") + &prompt + last,
        ),
        (text("model", "longer-than-the-other") + &large + last, text("model", "deployed") + &large + last),
        (large.clone() + &prompt + last, text("model", "deployed") + &large + &prompt + last),
        ("before\r\n".to_owned() + &large + last, "before\r\n".to_owned() + &text("model", "deployed") + &large + last),
        (last.to_owned(), text("model", "deployed") + last),
    ];
    for (sent, expected) in forms {
        for size in [1, 64, sent.len()] {
            let (mut reader, mut body) = (read(&sent, size).unwrap(), sent.clone().into_bytes());
            let range = reader.set_model(&mut body, "deployed").unwrap();
            assert_eq!(String::from_utf8_lossy(&body), expected, "in pieces of {size}");
            assert_eq!(&body[range.clone()], b"deployed");
            assert_eq!(reader.text("model"), Some(("deployed", range)), "{sent} in pieces of {size}");
            if let Some((prompt, range)) = reader.text("prompt") {
                assert_eq!(&body[range], prompt.as_bytes());
            }
        }
    }
    let mut reader = read(&large, 64).unwrap();
    let mut body = large.clone().into_bytes();
    let _ = reader.set_model(&mut body, "deployed").unwrap();
    let rest = "\r\n".to_owned() + &prompt;
    reader.push(rest.as_bytes()).unwrap();
    body.extend_from_slice(rest.as_bytes());
    reader.push(last.as_bytes()).unwrap();
    let (_, range) = reader.text("prompt").unwrap();
    assert_eq!(&body[range], b"p", "places behind the inserted part are those in the changed form");
    let mut reader = read(&large, 64).unwrap();
    let _ = reader.set_model(&mut large.clone().into_bytes(), "deployed").unwrap();
    assert!(reader.push(text("model", "other").as_bytes()).is_err(), "a model that comes later");
    assert!(read(&large, 64).unwrap().set_model(&mut large.clone().into_bytes(), "a\r\n----x y").is_err());
    assert!(read(&file("model", "x"), 64).is_err(), "a file is no name");
}
