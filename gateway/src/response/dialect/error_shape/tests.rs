use super::*;

fn check(body: &str, kind: Option<&str>, code: Option<&str>, message: &str) {
    let error = parse_error_body(400, body.as_bytes());
    assert_eq!((error.kind.as_deref(), error.code.as_deref()), (kind, code), "{body}");
    assert_eq!((error.status, error.message.as_str()), (Some(400), message), "{body}");
}

#[test]
fn errors_of_every_shape_are_read() {
    check(r#"{"error":{"message":"m","type":"t","code":"c","param":null}}"#, Some("t"), Some("c"), "m");
    check(r#"{"error":{"message":"m","code":400,"metadata":{}}}"#, None, Some("400"), "m");
    check(r#"{"error":{"message":"m","type":"","code":null}}"#, None, None, "m");
    check(r#"{"type":"error","error":{"type":"t","message":"m"},"request_id":"r"}"#, Some("t"), None, "m");
    check(r#"{"code":"invalid-argument","error":"m"}"#, None, Some("invalid-argument"), "m");
    check(r#"{"error":"m"}"#, None, None, "m");
    check(r#"{"error":{"why":1}}"#, None, None, r#"{"why":1}"#);
    check(r#"{"error":{"message":{"a":1}}}"#, None, None, r#"{"a":1}"#);
    check(r#"{"detail":"m"}"#, None, None, "m");
    check(r#"{"detail":[{"loc":["body"]}]}"#, None, None, r#"[{"loc":["body"]}]"#);
    check(r#"{"object":"error","message":"m","type":"t","code":40}"#, Some("t"), Some("40"), "m");
    check(r#"[{"error":{"code":404,"message":"m","status":"NOT_FOUND"}}]"#, None, Some("404"), "m");
    check("data: {\"error\":{\"message\":\"m\",\"type\":\"t\"}}\n\n", Some("t"), None, "m");
    check("error: {\"error\":{\"message\":\"m\"}}", None, None, "m");
    check(r#"{"type":"status","message":"m"}"#, Some("status"), None, "m");
    check(r#"{"base_resp":{"status_code":1008,"status_msg":"m"},"choices":null}"#, None, Some("1008"), "m");
    check(r#"{"error_code":17,"error_msg":"m"}"#, None, Some("17"), "m");
    check(r#"{"errcode":40001,"errmsg":"m"}"#, None, Some("40001"), "m");
    check(r#"{"code":500,"msg":"m","success":false}"#, None, Some("500"), "m");
    check(r#"{"success":false,"errors":[{"code":10000,"message":"m"}],"result":null}"#, None, Some("10000"), "m");
    check(r#"{"__type":"ThrottlingException","message":"m"}"#, None, None, "m");
    check(r#"{"error":true,"message":"m","code":"c"}"#, None, Some("c"), "m");
    check(r#"{"error":{"msg":"m","code":7}}"#, None, Some("7"), "m");
    check(r#"{"error":"m","error_type":"overloaded"}"#, Some("overloaded"), None, "m");
    check(r#"{"error":"m","type":"t"}"#, Some("t"), None, "m");
    check(r#"{"error":{"message":"m","http_status_code":422}}"#, None, Some("422"), "m");
    check(r#"{"error":{"message":"m","error_type":"t"}}"#, Some("t"), None, "m");
    check(
        r#"{"statusCode":429,"error":"Too Many Requests","message":"m"}"#,
        Some("Too Many Requests"),
        Some("429"),
        "m",
    );
    check(r#"{"error":"invalid_token","error_description":"m"}"#, Some("invalid_token"), None, "m");
    check(r#"{"error":"m","message":"m"}"#, None, None, "m");
    check(r#"{"error":{"message":"m"},"message":"other"}"#, None, None, "m");
    check(r#"{"status":500,"error":"m","path":"/"}"#, None, Some("500"), "m");
    check(r#"{"error_code":"BAD_REQUEST","message":"m"}"#, None, Some("BAD_REQUEST"), "m");
    check(r#"{"statusCode":401,"message":"m"}"#, None, Some("401"), "m");
    check(r#"{"title":"t","status":404,"detail":"m"}"#, None, Some("404"), "m");
    check(r#"{"type":"t","detail":"m","code":"c"}"#, Some("t"), Some("c"), "m");
    check(r#"{"detail":{"message":"m","code":"c"}}"#, None, Some("c"), "m");
    check(r#"{"object":"error","message":{"detail":[1]},"type":"t"}"#, Some("t"), None, r#"{"detail":[1]}"#);
    check(r#"{"throttlingException":{"message":"m"}}"#, Some("throttlingException"), None, "m");
    check(" Service Unavailable\n", None, None, "Service Unavailable");
    check("<html><h1>502</h1></html>", None, None, "<html><h1>502</h1></html>");
    check("", None, None, "");
}

#[test]
fn members_that_say_success_are_no_error() {
    for body in [
        r#"{"error":null}"#,
        r#"{"error":{}}"#,
        r#"{"error":false}"#,
        r#"{"error":0}"#,
        r#"{"error":""}"#,
        r#"{"error":[]}"#,
        r#"{"error":"success"}"#,
        r#"{"error":{"message":"","type":"","param":"model","code":null}}"#,
        r#"{"error":{"message":null,"code":0,"details":[],"inner":{}}}"#,
        r#"{"error":{"message":"Success","code":"200"}}"#,
        r#"{"errors":[],"success":true}"#,
        r#"{"message":"m"}"#,
        r#"{"type":"status","message":"m"}"#,
        r#"{"type":"progress","message":"m","status":"running"}"#,
        r#"{"code":0,"message":"m"}"#,
        r#"{"code":"00000","msg":"m"}"#,
        r#"{"code":200,"message":"m"}"#,
        r#"{"code":20000,"message":"Success"}"#,
        r#"{"code":"Success","message":"m"}"#,
        r#"{"status":200,"message":"m"}"#,
        r#"{"error_code":0,"error_msg":"m"}"#,
        r#"{"errcode":0,"errmsg":"ok"}"#,
        r#"{"base_resp":{"status_code":0,"status_msg":""}}"#,
        r#"{"base_resp":{"status_code":0,"status_msg":"success"}}"#,
        r#"{"detail":null}"#,
        r#"{"detail":""}"#,
        r#"{"message":{"role":"assistant","content":"m"},"done":false}"#,
        r#"{"note":{"message":"m"}}"#,
        r#"{"error":"","error_type":null}"#,
    ] {
        assert_eq!(find_error(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn codes_suggest_an_error_and_members_for_errors_report_it() {
    for (body, is_reported) in [
        (r#"{"error":"m"}"#, true),
        (r#"{"error":{"code":0,"message":"m"}}"#, true),
        (r#"{"error":{"message":"","type":"server_error"}}"#, true),
        (r#"{"error":{"why":1}}"#, true),
        (r#"{"detail":"m"}"#, true),
        (r#"{"type":"server_error","message":"m"}"#, true),
        (r#"{"object":"error","message":"m"}"#, true),
        (r#"{"base_resp":{"status_code":1004,"status_msg":""}}"#, true),
        (r#"{"error_msg":"m"}"#, true),
        (r#"{"code":7,"message":"m"}"#, false),
        (r#"{"code":"busy","msg":"m"}"#, false),
        (r#"{"statusCode":429,"message":"m"}"#, false),
        (r#"{"status":"error","message":"m"}"#, false),
        (r#"{"success":false,"message":"m"}"#, false),
    ] {
        assert!(find_error(body.as_bytes()).is_some(), "{body}");
        assert_eq!(find_reported_error(body.as_bytes()).is_some(), is_reported, "{body}");
    }
}

#[test]
fn messages_and_types_are_bounded() {
    let long = "é".repeat(100_000);
    let error = parse_error_body(500, format!(r#"{{"error":{{"message":"{long}","type":"{long}"}}}}"#).as_bytes());
    assert!(error.message.len() <= MAX_MESSAGE_BYTES);
    assert!(error.kind.unwrap().len() <= MAX_IDENTIFIER_BYTES);
}
