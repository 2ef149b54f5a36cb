//! Tests of usage in every dialect.

use super::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// Reads usage from the objects of several events.
fn read(read: fn(&mut Transcript) -> Usage, objects: &[&str]) -> (Usage, Vec<&'static str>) {
    let mut transcript = Transcript::default();
    transcript.set_identity(None, Some("m"));
    objects.iter().for_each(|json| transcript.set_usage(&raw(json)));
    (read(&mut transcript), transcript.notes)
}

/// Checks the totals (prompt, completion, total), and the parts: uncached, read, written, output, reasoning.
fn check(dialect: fn(&mut Transcript) -> Usage, json: &str, whole: [Option<u64>; 3], parts: [u64; 5]) {
    let (usage, notes) = read(dialect, &[json]);
    assert_eq!(notes, [""; 0], "{json}");
    check_counts(&usage, json, whole, parts);
    assert_eq!(usage.raw.unwrap().get(), json, "the raw usage object must stay as sent");
}

fn check_counts(usage: &Usage, json: &str, whole: [Option<u64>; 3], parts: [u64; 5]) {
    assert_eq!([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], whole, "{json}");
    let UsageParts { uncached_input, cache_read, cache_write, output, reasoning } = usage.parts;
    assert_eq!([uncached_input, cache_read, cache_write, output, reasoning], parts, "{json}");
}

/// Checks usage with a note.
fn check_noted(
    dialect: fn(&mut Transcript) -> Usage,
    objects: &[&str],
    whole: [u64; 3],
    parts: [u64; 5],
    note: Option<&'static str>,
) {
    let (usage, notes) = read(dialect, objects);
    check_counts(&usage, objects[0], whole.map(Some), parts);
    assert_eq!(notes, Vec::from_iter(note), "{objects:?}");
}

#[test]
fn parts_are_disjoint() {
    let some = |a, b, c| [Some(a), Some(b), Some(c)];
    check(
        from_openai,
        r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2},"completion_tokens_details":{"reasoning_tokens":5}}"#,
        some(10, 7, 17),
        [4, 4, 2, 2, 5],
    );
    // Reasoning in addition to the completion, as the total shows.
    check(
        from_openai,
        r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":22,"completion_tokens_details":{"reasoning_tokens":5}}"#,
        some(10, 7, 22),
        [10, 0, 0, 7, 5],
    );
    check(
        from_openai,
        r#"{"input_tokens":3,"output_tokens":2,"total_tokens":5,"input_tokens_details":{"cached_tokens":1},"output_tokens_details":{"reasoning_tokens":2}}"#,
        some(3, 2, 5),
        [2, 1, 0, 0, 2],
    );
    check(
        from_openai,
        r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":8}"#,
        some(9, 1, 10),
        [1, 8, 0, 1, 0],
    );
    check(
        from_anthropic,
        r#"{"input_tokens":3,"cache_read_input_tokens":20,"cache_creation_input_tokens":100,"output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}"#,
        some(123, 9, 132),
        [3, 20, 100, 5, 4],
    );
    check(from_anthropic, r#"{"output_tokens":9}"#, [None, Some(9), Some(9)], [0, 0, 0, 9, 0]);
}

#[test]
fn counts_that_do_not_add_up_are_kept_and_noted() {
    let note = Some(DOES_NOT_ADD_UP);
    for (json, whole, parts) in [
        // Sound or hidden reasoning that only the total counts.
        (r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":389}"#, [10, 4, 389], [10, 0, 0, 4, 0]),
        (r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":12}"#, [10, 4, 12], [10, 0, 0, 4, 0]),
        // More reasoning than output, which the total leaves out.
        (
            r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"reasoning_tokens":9}"#,
            [10, 4, 14],
            [10, 0, 0, 4, 9],
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":4,"cache_read_input_tokens":20,"total_tokens":7}"#,
            [3, 4, 7],
            [0, 3, 0, 4, 0],
        ),
    ] {
        check_noted(from_openai, &[json], whole, parts, note);
    }
    let zero_total = r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":0}"#;
    check_noted(from_openai, &[zero_total], [10, 4, 14], [10, 0, 0, 4, 0], None);
    let thinking = r#"{"input_tokens":1,"output_tokens":4,"output_tokens_details":{"thinking_tokens":5}}"#;
    check_noted(from_anthropic, &[thinking], [1, 4, 5], [1, 0, 0, 0, 4], note);
}

#[test]
fn counts_under_two_names_are_read_where_they_are_filled() {
    let json = r#"{"prompt_tokens":0,"input_tokens":10,"completion_tokens":4,"output_tokens":0,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":0},"input_tokens_details":{"cached_tokens":3},"prompt_cache_hit_tokens":0}"#;
    check_noted(from_openai, &[json], [10, 4, 14], [7, 3, 0, 4, 0], None);
}

#[test]
fn a_later_report_of_nothing_changes_nothing() {
    let openai =
        r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":3}}"#;
    let zeros = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":null}"#;
    check_noted(from_openai, &[openai, zeros, "{}"], [10, 4, 14], [7, 3, 0, 4, 0], None);
    let output = r#"{"prompt_tokens":0,"completion_tokens":6,"total_tokens":6}"#;
    check_noted(from_openai, &[openai, output], [10, 6, 16], [7, 3, 0, 6, 0], None);
    let start = r#"{"input_tokens":15,"output_tokens":1,"cache_read_input_tokens":5}"#;
    let delta = r#"{"input_tokens":0,"output_tokens":9,"cache_read_input_tokens":0}"#;
    check_noted(from_anthropic, &[start, delta], [20, 9, 29], [15, 5, 0, 9, 0], None);
}

#[test]
fn passes_that_compacted_the_conversation_are_added() {
    let pass = |kind: &str, model: &str, input: u64| {
        format!(r#"{{"type":"{kind}",{model}"input_tokens":{input},"cache_read_input_tokens":7,"output_tokens":50}}"#)
    };
    let usage = |passes: &[String]| {
        let passes = passes.join(",");
        format!(r#"{{"input_tokens":100,"cache_read_input_tokens":2,"output_tokens":10,"iterations":[{passes}]}}"#)
    };
    let message = pass("message", "", 100);
    let one = usage(&[pass("compaction", "", 9_000), message.clone()]);
    check_noted(from_anthropic, &[&one], [9_109, 60, 9_169], [9_100, 9, 0, 60, 0], None);
    let start = r#"{"input_tokens":9000,"output_tokens":5}"#;
    check_noted(from_anthropic, &[start, &one], [9_109, 60, 9_169], [9_100, 9, 0, 60, 0], None);
    let two = usage(&[pass("compaction", r#""model":"m","#, 9_000), pass("compaction", "", 1_000), message.clone()]);
    check_noted(from_anthropic, &[&two], [10_116, 110, 10_226], [10_100, 16, 0, 110, 0], None);
    let others = [
        pass("advisor_message", r#""model":"other","#, 9_000),
        pass("compaction", r#""model":"other","#, 9_000),
        pass("fallback_message", "", 100),
        message,
    ];
    check_noted(from_anthropic, &[&usage(&others)], [102, 10, 112], [100, 2, 0, 10, 0], None);
}

#[test]
fn input_that_includes_the_cache_is_split() {
    let note = Some(INPUT_INCLUDES_CACHE);
    let counts = r#""input_tokens":100,"cache_read_input_tokens":80,"output_tokens":9"#;
    for proof in [r#""prompt_tokens":100"#, r#""total_tokens":109"#] {
        let json = format!("{{{counts},{proof}}}");
        check_noted(from_anthropic, &[&json], [100, 9, 109], [20, 80, 0, 9, 0], note);
    }
    for no_proof in [r#""prompt_tokens":180"#, r#""total_tokens":189"#, r#""x":1"#] {
        let json = format!("{{{counts},{no_proof}}}");
        check_noted(from_anthropic, &[&json], [180, 9, 189], [100, 80, 0, 9, 0], None);
    }
    let split = r#"{"input_tokens":20,"cache_read_input_tokens":80}"#;
    let whole = r#"{"input_tokens":100,"output_tokens":9}"#;
    check_noted(from_anthropic, &[split, whole], [100, 9, 109], [20, 80, 0, 9, 0], note);
}

#[test]
fn a_reported_zero_is_reported_and_nonsense_is_unknown() {
    let zero = read(from_openai, &[r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#]).0;
    assert_eq!((zero.source, zero.prompt_tokens), (UsageSource::Reported, Some(0)));
    let zero = read(from_anthropic, &[r#"{"input_tokens":0,"output_tokens":0}"#]).0;
    assert_eq!((zero.source, zero.completion_tokens), (UsageSource::Reported, Some(0)));
    for odd in ["{}", "[1]", "\"many\"", r#"{"prompt_tokens":"seven"}"#, r#"{"input_tokens":-1}"#] {
        for dialect in [from_openai, from_anthropic] {
            let usage = read(dialect, &[odd]).0;
            assert_eq!(usage.source, UsageSource::Unknown, "{odd}");
            assert!(usage.raw.is_some(), "{odd}");
        }
    }
    assert!(read(from_openai, &[]).0.raw.is_none());
}

#[test]
fn very_large_numbers_do_not_overflow() {
    let most = u64::MAX;
    let json = format!(
        r#"{{"prompt_tokens":{most},"completion_tokens":{most},"completion_tokens_details":{{"reasoning_tokens":{most}}}}}"#
    );
    assert_eq!(read(from_openai, &[&json]).0.total_tokens, Some(most));
    let json = format!(r#"{{"input_tokens":{most},"cache_read_input_tokens":{most},"output_tokens":{most}}}"#);
    assert_eq!(read(from_anthropic, &[&json]).0.total_tokens, Some(most));
}

#[test]
fn counts_under_the_names_of_imitators_are_read() {
    let some = |a, b, c| [Some(a), Some(b), Some(c)];
    check(
        from_openai,
        r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"num_cached_tokens":4}"#,
        some(10, 1, 11),
        [6, 4, 0, 1, 0],
    );
    check(
        from_openai,
        r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4,"cache_creation_tokens":3}}"#,
        some(10, 1, 11),
        [3, 4, 3, 1, 0],
    );
    let split = r#""cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":7}"#;
    for whole in ["", r#""cache_creation_input_tokens":0,"#, r#""cache_creation_input_tokens":12,"#] {
        let usage = format!(r#"{{"input_tokens":3,"output_tokens":1,{whole}{split}}}"#);
        check(from_anthropic, &usage, some(15, 1, 16), [3, 0, 12, 1, 0]);
    }
}
