//! The kinds of output items: what an item means for the record, decided by its type.

use super::shape::OutputItem;

/// The meaning of an output item for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    /// A message of the assistant.
    Message,
    /// Reasoning: a summary, or the text itself.
    Reasoning,
    /// A call that the client carries out or answers. Recorded as a tool call.
    ClientCall,
    /// A call of one of the provider's own tools. Only counted.
    ServerCall,
    /// No call: the output of a call, a list of tools, compacted context. Not recorded.
    Unrecorded,
}

impl ItemKind {
    /// The kind of an item. An item of an unknown type counts as a call of the provider's own tools.
    pub(super) fn of(item: &OutputItem<'_>) -> Self {
        match item.kind.non_empty().unwrap_or("") {
            "message" | "output_text" | "text" => Self::Message,
            "reasoning" => Self::Reasoning,
            "function_call"
            | "custom_tool_call"
            | "mcp_approval_request"
            | "local_shell_call"
            | "computer_call"
            | "apply_patch_call" => Self::ClientCall,
            "shell_call" if item.runs_in_container() => Self::ServerCall,
            "shell_call" => Self::ClientCall,
            "tool_search_call" if item.execution.non_empty() == Some("client") => Self::ClientCall,
            "mcp_list_tools"
            | "mcp_approval_response"
            | "additional_tools"
            | "agent_message"
            | "item_reference"
            | "configuration_update" => Self::Unrecorded,
            // Some imitations leave out the type of a message.
            "" if item.has_content() => Self::Message,
            "" => Self::Unrecorded,
            other if other.ends_with("_output") || other.ends_with("_tool_result") || other.contains("compaction") => {
                Self::Unrecorded
            }
            _ => Self::ServerCall,
        }
    }
}
