use super::*;

#[test]
fn a_bounded_transcript_is_marked_as_truncated() {
    let mut transcript = Transcript::default();
    let chunk = "é".repeat(500_000);
    for _ in 0..20 {
        transcript.append(TranscriptPart::Text, &chunk);
    }
    let message = transcript.message(MessageId(uuid::Uuid::nil()));
    assert!(message.truncated);
    assert!(message.text.len() <= MAX_RECORDED_BYTES && message.text.len() > MAX_RECORDED_BYTES - 2);
}

#[test]
fn tool_calls_choices_and_identifiers_are_bounded() {
    let mut transcript = Transcript::default();
    assert!((0..2_000).filter_map(|_| transcript.open_tool_call()).count() == MAX_TOOL_CALLS);
    transcript.name_tool_call(0, Some(&"i".repeat(MAX_RECORDED_BYTES)), Some("name"));
    assert_eq!(transcript.tool_calls[0].name, "", "the id has used up the maximum size");
    assert!((1..100).filter_map(|index| transcript.other_choice(index).map(|_| ())).count() == MAX_OTHER_CHOICES);
    transcript.set_identity(Some(&"é".repeat(1_000)), None);
    assert_eq!(transcript.response_id.as_ref().map(String::len), Some(MAX_IDENTIFIER_BYTES));
    assert!(transcript.message(MessageId(uuid::Uuid::nil())).truncated);
}
