// Chat templates of model families whose directories hold none: their prompts are made by Python code that comes with the model.
#pragma once
#include <filesystem>
#include <memory>

#include "data/templates/chat_template.h"

namespace graft {

// By config.json and tokenizer_config.json of a model directory: ChatGLM2, ChatGLM3, openPangu, DeepSeek V3.2. Null for others.
std::shared_ptr<const ChatTemplate> built_in_template(const std::filesystem::path& model);

}  // namespace graft
