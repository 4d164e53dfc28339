"""A tiny random llama (or another model_type) with a byte-level tokenizer and a chat template: whole runs in seconds."""
import json
import os
import pathlib
import random

os.environ["HF_HUB_OFFLINE"] = "1"

TEMPLATE = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def make_tiny_chat_model(folder: pathlib.Path, **config) -> pathlib.Path:
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "model_max_length": 512, "chat_template": TEMPLATE}))
    torch.manual_seed(1)
    settings = {"model_type": "llama", "vocab_size": 600, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                "max_position_embeddings": 512, "rms_norm_eps": 1e-3, "tie_word_embeddings": False, "eos_token_id": 257, "bos_token_id": None} | config
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).save_pretrained(folder)
    return folder


def write_rows(path: pathlib.Path, count: int, seed: int = 0) -> pathlib.Path:
    """Labelled rows of different length; the label can be learnt."""
    chance = random.Random(seed)
    words = {"red": ["rose", "blood", "brick"], "blue": ["sky", "sea", "ink"], "green": ["leaf", "frog", "moss"]}
    with path.open("w") as file:
        for index in range(count):
            label = chance.choice(list(words))
            text = " ".join(chance.choice(words[label]) for _ in range(chance.randint(1, 9))) + f" {index}"
            file.write(json.dumps({"text": text, "label": label}) + "\n")
    return path
