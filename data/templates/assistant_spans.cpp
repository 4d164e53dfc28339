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

// The content replaced by the mark; or only what follows a think block in it, which some templates take apart.
std::optional<Json> marked(const Json& message, bool keep_thinking) {
  const auto content = message.find("content");
  if (content == message.end()) return std::nullopt;
  Json result = message;
  if (content->is_array()) {
    if (content->empty() || keep_thinking) return std::nullopt;
    result["content"] = Json::array({{{"type", "text"}, {"text", kMark}}});
    return result;
  }
  if (!content->is_string() || is_blank(content->get_ref<const std::string&>())) return std::nullopt;
  const std::string& text = content->get_ref<const std::string&>();
  const size_t think_end = text.rfind("</think>");
  if (keep_thinking && think_end == std::string::npos) return std::nullopt;
  result["content"] = (keep_thinking ? text.substr(0, think_end + 8) + "\n\n" : "") + kMark;
  return result;
}

struct Content {
  TextSpan span;
  bool after_thinking = false;  // a think block of the content stands before it
};

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
    const std::optional<Content> content = find_content(through, turn_text);
    AssistantTurn turn;
    turn.message = index;
    turn.stable_until = whole_specials(common_prefix(turn_text, text_));
    turn.span.begin = find_begin(message, before, turn_text, content, turn.unasked);
    const bool plain = content && !has_entries(message, "tool_calls");
    const size_t written_until = plain ? content->span.end : end_of_writing(turn, turn_text);
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
  std::optional<Content> find_content(const Json& through, const std::string& turn_text) {
    const std::string mark = kMark;
    for (const bool keep_thinking : {false, true}) {
      Json changed = through;
      const auto replaced = marked(changed.back(), keep_thinking);
      if (!replaced) continue;
      changed.back() = *replaced;
      const auto with_mark = try_render(changed, false);
      const size_t begin = with_mark ? with_mark->rfind(mark) : std::string::npos;
      if (begin == std::string::npos) continue;
      const size_t after = with_mark->size() - begin - mark.size();
      if (turn_text.size() >= begin + after && turn_text.compare(0, begin, *with_mark, 0, begin) == 0 &&
          turn_text.compare(turn_text.size() - after, after, *with_mark, begin + mark.size(), after) == 0) {
        return Content{{begin, turn_text.size() - after}, keep_thinking};
      }
    }
    return std::nullopt;
  }

  size_t find_begin(const Json& message, const Json& before, const std::string& turn_text, const std::optional<Content>& content,
                    bool& unasked) {
    const std::string base = before.empty() ? "" : try_render(before, false).value_or("");
    const std::string prompt = before.empty() ? base : try_render(before, true).value_or(base);
    const bool has_prompt = prompt != base;
    if (has_prompt && starts_with(turn_text, prompt)) return prompt.size();
    unasked = !starts_with(turn_text, base);
    const size_t latest = content ? content->span.begin : turn_text.size();
    if (unasked) return latest;
    if (has_prompt) {
      // The turn is not written as it is asked for: a think block is added or missing. It begins where the two part, or a little
      // before: "<think>" and "<tool_call>" part after "<t".
      size_t parting = common_prefix(turn_text, prompt);
      while (parting > base.size() && std::string_view("\n >]").find(turn_text[parting - 1]) == std::string_view::npos) --parting;
      return std::min(parting, latest);
    }
    // No generation prompt: what stands before the content is the turn's header, unless it is blank or the assistant's reasoning.
    if (!content || content->after_thinking || has_reasoning(message)) return base.size();
    return is_blank(std::string_view(turn_text).substr(base.size(), latest - std::min(base.size(), latest))) ? base.size() : latest;
  }

  // Two different special tokens may begin alike: a text is the same only up to the first of them.
  size_t whole_specials(size_t length) const {
    for (const SpecialToken& special : specials_) {
      if (special.span.begin < length && length < special.span.end) return special.span.begin;
    }
    return length;
  }

  // Of a turn whose content is not known (tool calls, an edited think block): all of its text, but for the blanks and special tokens at its
  // end, which a template may write otherwise when the conversation goes on.
  size_t end_of_writing(const AssistantTurn& turn, const std::string& turn_text) const {
    std::string_view written = jinja::strip(turn_text, nullptr, false, true);
    for (auto special = ending_of(written); special != specials_.end(); special = ending_of(written)) {
      written.remove_suffix(special->span.end - special->span.begin);
      written = jinja::strip(written, nullptr, false, true);
    }
    return std::max(written.size(), turn.span.begin);
  }

  std::vector<SpecialToken>::const_iterator ending_of(std::string_view written) const {
    return std::find_if(specials_.begin(), specials_.end(), [&](const SpecialToken& special) {
      return written.ends_with(std::string_view(text_).substr(special.span.begin, special.span.end - special.span.begin));
    });
  }

  bool is_stop(int32_t id) const { return std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end(); }

  size_t find_end(bool plain, size_t written_until, const AssistantTurn& turn) const {
    const size_t from = plain ? written_until : turn.span.begin;
    const SpecialToken* end_token = nullptr;
    for (const SpecialToken& special : specials_) {
      if (special.span.begin < from) continue;
      if (special.span.end > turn.stable_until) {
        // Some models end a turn with the next turn's first token.
        const bool ended = end_token && (plain || is_stop(end_token->id));
        if (!ended && special.span.begin == turn.stable_until && is_stop(special.id)) end_token = &special;
        break;
      }
      // After known content the first one ends the turn, or one that is joined to it and known to end turns.
      if (plain && end_token && (is_stop(end_token->id) || special.span.begin != end_token->span.end)) break;
      if (plain && end_token && !is_stop(special.id)) continue;
      end_token = &special;
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
