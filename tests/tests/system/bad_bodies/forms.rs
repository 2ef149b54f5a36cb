//! Bad forms at every endpoint that takes one.

use super::{BadBody, MAX_BYTES, Shape, bad, check, check_nothing_happened, stack};

const BOUNDARY: &str = "form-boundary";

fn field(name: &str, value: &str) -> Vec<u8> {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

fn file(name: &str, size: usize) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; size], b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// Forms that are bad at every endpoint that takes a form.
fn bad_forms(names_model: bool, file_name: &str) -> Vec<BadBody> {
    let media_type = "multipart/form-data; boundary=form-boundary";
    let good = form(&[field("model", "m"), file(file_name, 9)]);
    let bad = |name: &str, body: Vec<u8>, status, message| BadBody {
        headers: vec![("content-type", media_type)],
        ..bad(name, body, status, message)
    };
    let mut all = vec![
        bad("an empty body", Vec::new(), 400, "ends before its last boundary"),
        bad("no last boundary", field("model", "m"), 400, "ends before its last boundary"),
        bad("a cut file", good[..good.len() - 30].to_vec(), 400, "ends before its last boundary"),
        bad("JSON within", br#"{"model":"m"}"#.to_vec(), 400, "boundary"),
        bad(
            "no disposition",
            format!("--{BOUNDARY}\r\na: b\r\n\r\nx\r\n--{BOUNDARY}--\r\n").into(),
            400,
            "content-disposition",
        ),
        bad(
            "a part without a name",
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n").into(),
            400,
            "name",
        ),
        bad(
            "a head that is not UTF-8",
            [
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"").into_bytes(),
                b"\xff\"\r\n\r\nx\r\n".to_vec(),
                format!("--{BOUNDARY}--\r\n").into(),
            ]
            .concat(),
            400,
            "",
        ),
        bad("two models", form(&[field("model", "m"), field("model", "n"), file(file_name, 9)]), 400, "model"),
        bad("a model that is a file", form(&[file("model", 1), file(file_name, 9)]), 400, "model"),
        bad(
            "a model that is not UTF-8",
            form(&[
                [field("model", "")[..field("model", "").len() - 2].to_vec(), b"\xff\r\n".to_vec()].concat(),
                file(file_name, 9),
            ]),
            400,
            "model",
        ),
        bad(
            "a model that is too long",
            form(&[field("model", &"m".repeat(300)), file(file_name, 9)]),
            400,
            "model: expected",
        ),
        bad("an empty model", form(&[field("model", " "), file(file_name, 9)]), 400, "model: expected"),
        bad(
            "a body that is too large",
            form(&[field("model", "m"), file(file_name, 2 * MAX_BYTES)]),
            413,
            "larger than 10000 bytes",
        ),
    ];
    if !names_model {
        all.retain(|bad| !matches!(bad.name.as_str(), "a model that is too long" | "an empty model"));
    }
    for (name, headers, status, message) in [
        ("no content type", vec![], 415, "multipart/form-data"),
        ("JSON", vec![("content-type", "application/json")], 415, "multipart/form-data"),
        ("another form", vec![("content-type", "application/x-www-form-urlencoded")], 415, "multipart/form-data"),
        ("no boundary", vec![("content-type", "multipart/form-data")], 400, "boundary"),
        ("an empty boundary", vec![("content-type", "multipart/form-data; boundary=")], 400, "boundary"),
        ("another boundary", vec![("content-type", "multipart/form-data; boundary=other")], 400, "boundary"),
        ("an encoding", vec![("content-type", media_type), ("content-encoding", "gzip")], 415, ""),
    ] {
        all.push(BadBody { headers, ..bad(name, good.clone(), status, message) });
    }
    all
}

#[tokio::test]
async fn bad_forms_are_refused_at_every_endpoint() -> anyhow::Result<()> {
    let stack = stack().await?;
    let ann = stack.user("ann").await?;
    let mut failed = Vec::new();
    for (endpoint, file_name, default_model) in [
        ("/audio/transcriptions", "file", false),
        ("/audio/translations", "file", false),
        ("/images/edits", "image", true),
        ("/images/variations", "image", true),
    ] {
        for prefix in ["/v1", "/openai/v1", "/openai/deployments/m"] {
            let path = format!("{prefix}{endpoint}");
            let names_model = !prefix.ends_with("/m");
            let mut forms = bad_forms(names_model, file_name);
            if names_model && !default_model {
                let headers = vec![("content-type", "multipart/form-data; boundary=form-boundary")];
                let missing = bad("no model", form(&[file(file_name, 9)]), 400, "model: missing");
                forms.push(BadBody { headers, ..missing });
            }
            for bad in forms {
                if let Err(error) = check(&stack, &ann, &path, Shape::Openai, bad).await {
                    failed.push(format!("{error:#}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    check_nothing_happened(&stack, &ann).await
}
