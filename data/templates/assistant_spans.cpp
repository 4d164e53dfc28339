#include "data/templates/assistant_spans.h"

#include <algorithm>
#include <optional>

#include "data/templates/jinja/error.h"
#include "data/templates/jinja/python_text.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMark = "\uE0F0graft\uE0F1";  // private use: stands for the content, to see where a template puts it

size_t common_prefix(const std::string& a, const std::string& b) {
  const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  size_t length = static_cast<size_t>(at - a.begin());
  while (length > 0 && length < a.size() && (static_cast<unsigned char>(a[length]) & 0xC0) == 0x80) --length;  // whole code points
  return length;
}

bool starts_with(const std::string& text, const std::string& prefix) { return text.compare(0, prefix.size(), prefix) == 0; }

bool is_blank(std::string_view text) { return jinja::strip(text, nullptr, true, true).empty(); }

bool has_entries(const Json& message, const char* key) {
  const auto found = message.find(key);
  return found != message.end() && !found->is_null() && !found->empty() && *found != "";
}

bool has_reasoning(const Json& message) {
  return has_entries(message, "reasoning_content") || has_entries(message, "thinking") || has_entries(message, "reasoning");
}

// The visible part of the content replaced by the mark: what follows a think block that stands in the content itself.
std::optional<Json> marked(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return std::nullopt;
  Json result = message;
  if (content->is_array()) {
    if (content->empty()) return std::nullopt;
    result["content"] = Json::array({{{"type", "text"}, {"text", kMark}}});
    return result;
  }
  if (!content->is_string() || is_blank(content->get_ref<const std::string&>())) return std::nullopt;
  const std::string& text = content->get_ref<const std::string&>();
  const size_t think_end = text.rfind("</think>");
  result["content"] = (think_end == std::string::npos ? "" : text.substr(0, think_end + 8) + "\n\n") + kMark;
  return result;
}

class TurnFinder {
 public:
  TurnFinder(const RenderMessages& render, const Json& messages, const std::string& text, const std::vector<SpecialToken>& specials,
             const std::vector<int32_t>& stop_ids)
      : render_(render), messages_(messages), text_(text), specials_(specials), stop_ids_(stop_ids) {}

  AssistantTurn find(size_t index) {
    const Json& message = messages_[index];
    const bool last = index + 1 == messages_.size();
    const Json before = first(index), through = first(index + 1);
    const std::string turn_text = last ? text_ : render_(through, false);
    const std::optional<TextSpan> content = find_content(through, turn_text);
    AssistantTurn turn;
    turn.message = index;
    turn.stable_until = common_prefix(turn_text, text_);
    turn.span.begin = find_begin(message, before, turn_text, content);
    const bool plain = content && !has_entries(message, "tool_calls");
    const size_t written_until = plain ? content->end : end_of_writing(turn, turn_text);
    turn.rewritten = turn.stable_until < written_until;
    turn.span.end = find_end(plain, written_until, turn);
    turn.span.end = std::max(turn.span.end, turn.span.begin);
    return turn;
  }

 private:
  Json first(size_t count) const { return Json(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count)); }

  std::optional<std::string> try_render(const Json& messages, bool add_generation_prompt) {
    try {
      return render_(messages, add_generation_prompt);
    } catch (const TemplateError&) {  // some templates refuse a conversation that ends there
      return std::nullopt;
    }
  }

  // Where the last message's content stands in turn_text: found by rendering a mark in its place. nullopt when it is empty, or when the
  // template does more with it than to write (and trim) it.
  std::optional<TextSpan> find_content(const Json& through, const std::string& turn_text) {
    Json changed = through;
    const auto replaced = marked(changed.back());
    if (!replaced) return std::nullopt;
    changed.back() = *replaced;
    const auto with_mark = try_render(changed, false);
    if (!with_mark) return std::nullopt;
    const std::string mark = kMark;
    const size_t begin = with_mark->rfind(mark);
    if (begin == std::string::npos) return std::nullopt;
    const size_t after = with_mark->size() - begin - mark.size();
    if (turn_text.size() < begin + after || turn_text.compare(0, begin, *with_mark, 0, begin) != 0 ||
        turn_text.compare(turn_text.size() - after, after, *with_mark, begin + mark.size(), after) != 0) {
      return std::nullopt;
    }
    return TextSpan{begin, turn_text.size() - after};
  }

  size_t find_begin(const Json& message, const Json& before, const std::string& turn_text, const std::optional<TextSpan>& content) {
    const std::string base = before.empty() ? "" : try_render(before, false).value_or("");
    const std::string prompt = before.empty() ? base : try_render(before, true).value_or(base);
    const bool has_prompt = prompt != base;
    if (has_prompt && starts_with(turn_text, prompt)) return prompt.size();
    const size_t base_end = starts_with(turn_text, base) ? base.size() : common_prefix(turn_text, base);
    if (has_prompt) {
      // The turn is not written as it is asked for: a think block is added or missing. It begins where the two part.
      const size_t parting = common_prefix(turn_text, prompt);
      return content ? std::min(std::max(parting, base_end), content->begin) : std::max(parting, base_end);
    }
    // No generation prompt: what stands before the content is the turn's header, unless it is blank or the assistant's reasoning.
    if (!content || has_reasoning(message)) return base_end;
    const std::string_view header = std::string_view(turn_text).substr(base_end, content->begin - std::min(base_end, content->begin));
    return is_blank(header) ? base_end : content->begin;
  }

  // Of a turn whose content is not known (tool calls, an edited think block): all of its text, but for blanks and what the template writes
  // only at a conversation's end, after the turn's last special token.
  size_t end_of_writing(const AssistantTurn& turn, const std::string& turn_text) const {
    const std::string_view written = jinja::strip(turn_text, nullptr, false, true);
    size_t end = written.size();
    for (const SpecialToken& special : specials_) {
      if (special.span.begin < turn.span.begin || special.span.end > turn.stable_until) continue;
      if (is_blank(written.substr(std::min(special.span.end, written.size())))) end = std::min(end, special.span.end);
    }
    return std::max(end, turn.span.begin);
  }

  bool is_stop(int32_t id) const { return std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end(); }

  size_t find_end(bool plain, size_t written_until, const AssistantTurn& turn) const {
    const SpecialToken* end_token = nullptr;
    for (const SpecialToken& special : specials_) {
      if (special.span.end > turn.stable_until) {
        // Some models end a turn with the next turn's first token.
        if (!end_token && special.span.begin == turn.stable_until && is_stop(special.id)) end_token = &special;
        break;
      }
      if (special.span.begin < (plain ? written_until : turn.span.begin)) continue;
      end_token = &special;
      if (plain) break;
    }
    return end_token ? end_token->span.end : std::min(written_until, turn.stable_until);
  }

  const RenderMessages& render_;
  const Json& messages_;
  const std::string& text_;
  const std::vector<SpecialToken>& specials_;
  const std::vector<int32_t>& stop_ids_;
};

}  // namespace

std::vector<AssistantTurn> find_assistant_turns(const RenderMessages& render, const Json& messages, const std::string& text,
                                                const std::vector<SpecialToken>& specials, const std::vector<int32_t>& stop_ids) {
  TurnFinder finder(render, messages, text, specials, stop_ids);
  std::vector<AssistantTurn> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].is_object() && messages[i].value("role", Json()) == "assistant") turns.push_back(finder.find(i));
  }
  return turns;
}

}  // namespace graft
