"""Small randomly initialised models with a tokenizer trained on the spot: real loading code, nothing to fetch."""

from __future__ import annotations

import json
from pathlib import Path

TEXT = [
    "How does bread rise? Yeast makes gas in the dough, and the gas lifts it.",
    "Write a function that sorts a list of numbers. Grade: 1 2 3 4 5 6",
    "Answer with a JSON list: [{\"tag\": \"cooking\", \"explanation\": \"about food\"}]",
    "Who was emperor after Augustus? Tiberius was. 面包 怎么 发酵?",
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def save_tokenizer(folder: Path, *, bos: bool = False, pad: bool = True, template: bool = False) -> int:
    """Byte-level BPE; the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {"bos_token": "<s>", "eos_token": "</s>"} | ({"pad_token": "<pad>"} if pad else {})
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    if template:
        fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def save_causal(folder: Path, kind: str = "llama", *, positions: int = 512, **tokenizer: bool) -> str:
    """A causal language model of a few thousand parameters; its folder."""
    import torch
    import transformers as tf

    size = save_tokenizer(folder, **tokenizer)
    torch.manual_seed(0)
    if kind == "llama":
        config = tf.LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=positions, bos_token_id=0, eos_token_id=1, pad_token_id=2,
            initializer_range=0.5,
        )  # fmt: skip
        model = tf.LlamaForCausalLM(config)
    else:
        config = tf.GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=positions, bos_token_id=0, eos_token_id=1,
            initializer_range=0.5,
        )  # fmt: skip
        model = tf.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return str(folder)


def save_reward(folder: Path, kind: str = "llama", *, classes: int = 1, pad: bool = True) -> str:
    """A sequence classifier; its folder."""
    import torch
    import transformers as tf

    torch.manual_seed(1)
    if kind == "bert":
        return _save_bert(folder, classes)
    size = save_tokenizer(folder, pad=pad, template=True)
    config = tf.LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
        pad_token_id=2 if pad else None, num_labels=classes, initializer_range=0.5,
    )  # fmt: skip
    tf.LlamaForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def _save_bert(folder: Path, classes: int) -> str:
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({w for line in TEXT for w in line.split()})]
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip
    config = tf.BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, num_labels=classes, initializer_range=0.5,
    )  # fmt: skip
    tf.BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def save_embedder(folder: Path) -> str:
    """A sentence-transformers model (BERT, mean pooling); its folder."""
    import torch
    import transformers as tf
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(2)
    _save_bert(folder / "bert", 2)
    config = tf.AutoConfig.from_pretrained(folder / "bert")
    tf.BertModel(config).save_pretrained(folder / "bert")
    # a folder without modules of its own gets mean pooling
    SentenceTransformer(str(folder / "bert"), device="cpu", local_files_only=True).save(str(folder / "model"))
    return str(folder / "model")


def save_gguf(folder: Path, file: Path) -> str:
    """The llama model of a folder as one GGUF file, float32; its path."""
    import gguf
    import numpy as np
    import transformers as tf

    model, tokenizer = tf.AutoModelForCausalLM.from_pretrained(folder), tf.AutoTokenizer.from_pretrained(folder)
    config, said = model.config, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    special = {token["content"] for token in said["added_tokens"]}
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in said["model"]["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        values = tensor.numpy().astype(np.float32)
        for layer, n in heads.items():
            if layer in name:  # this format has the halves of a rotary pair beside each other
                shape = (n, 2, values.shape[0] // n // 2, *values.shape[1:])
                values = np.ascontiguousarray(values.reshape(shape).swapaxes(1, 2).reshape(values.shape))
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(file)
