//! Messages between the daemon of a mount and other commands.

/// The input is a message's body.
pub fn run(input: &[u8]) {
    blockframe::control::understands(input);
    let message = [&b"{\"version\":1,\"body\":"[..], input, b"}"].concat();
    blockframe::control::understands(&message);
}

/// Bodies of requests and replies.
pub fn seeds() -> Vec<Vec<u8>> {
    let records = super::record::seeds();
    let object = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &records[0]);
    let bodies = [
        r#"{"request":"status"}"#.into(),
        r#"{"request":"sync","path":"YS9i"}"#.into(),
        r#"{"request":"begin","purpose":"collect"}"#.into(),
        format!(r#"{{"request":"add_object","records":["{object}"]}}"#),
        r#"{"request":"commit_entries","spool":".blockframe/tmp/spool-x"}"#.into(),
        r#"{"request":"remove_history","seconds":-5,"nanoseconds":7}"#.into(),
        r#"{"request":"remove_path","path":"eA==","recursive":true}"#.into(),
        r#"{"reply":"failed","class":"busy","message":"no"}"#.into(),
        r#"{"reply":"status","status":{"pid":7,"oldest_staged":-5}}"#.into(),
        r#"{"reply":"progress","progress":{"files_left":1,"bytes_left":2}}"#.into(),
    ];
    bodies.into_iter().map(String::into_bytes).collect()
}
