"""Tiny random models of the families of LLMs, each with a tokenizer of its kind, in folders as they are published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
GEMMA: dict[str, Any] = {**GROUPED, "head_dim": 8, "sliding_window": 24, "query_pre_attn_scalar": 8}

SMALL_EYE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINKING = (  # Qwen3's, as far as it matters here
    CHATML.removesuffix("{% endif %}")
    + "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    + "{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
BARS = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)


@dataclass(frozen=True)
class Words:
    """A tokenizer. pieces: spaces become part of words, as in SentencePiece; else bytes, as in GPT-2.

    special: its special tokens by role; a role that is not there it has not. added: further ones, without a role.
    begins, ends: whether it puts those around every text. chat: its template.
    """

    special: Mapping[str, str]
    pieces: bool = False
    begins: bool = False
    ends: bool = False
    chat: str | None = None
    added: tuple[str, ...] = ()

    def made(self) -> PreTrainedTokenizerFast:
        """The tokenizer."""
        names = dict.fromkeys([*self.special.values(), *self.added])
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)] if self.pieces else pre_tokenizers.ByteLevel.alphabet()
        letters = [chr(code) for code in range(33, 127)] + ["\u2581"] if self.pieces else []
        vocabulary = {token: i for i, token in enumerate([*names, *sorted(alphabet), *letters])}
        if self.pieces:
            tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, fuse_unk=True))
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
            )
            tokenizer.decoder = decoders.Sequence(
                [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
        else:
            tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
        around = [
            self.special.get(role) for role, there in (("bos_token", self.begins), ("eos_token", self.ends)) if there
        ]
        if around:
            begin, end = self.special.get("bos_token", ""), self.special["eos_token"]
            single = " ".join([*[begin] * self.begins, "$A", *[end] * self.ends])
            tokens = [(token, vocabulary[token]) for token in around if token]
            tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
        options = {**self.special, "additional_special_tokens": [*self.added], "chat_template": self.chat}
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


SENTENCEPIECE = Words({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, pieces=True, begins=True)
LLAMA3 = Words(
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|pad|>"}, begins=True, ends=True
)
QWEN = Words({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, chat=CHATML, added=("<|im_start|>",))
GEMMAS = Words(
    {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
    pieces=True,
    begins=True,
    chat=TURNS,
    added=("<start_of_turn>", "<end_of_turn>"),
)
OPENAI = Words({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})


@dataclass(frozen=True)
class Case:
    """A model, a tokenizer, and what a user of such would set. made: from the settings of tokens, the model."""

    made: Callable[[dict[str, Any]], Any]
    words: Words
    targets: list[str] | None = None
    prompt: dict[str, Any] = field(default_factory=dict)
    sharded: bool = False
    full: bool = False

    def save(self, folder: Path) -> Path:
        """Write the model, in shards where it has such, and its tokenizer."""
        tokenizer = self.words.made()
        torch.manual_seed(0)
        ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
        model = self.made({"vocab_size": len(tokenizer), **ids})
        model.save_pretrained(folder, **({"max_shard_size": "20KB"} if self.sharded else {}))
        tokenizer.save_pretrained(folder)
        return folder


CHAT = {"chat": True}
CASES: dict[str, Case] = {
    "Llama, in the manner of 2": Case(
        lambda ids: LlamaForCausalLM(LlamaConfig(**SIZES, **ids, tie_word_embeddings=False)),
        SENTENCEPIECE,
        sharded=True,
    ),
    "Llama, in the manner of 3": Case(
        lambda ids: LlamaForCausalLM(LlamaConfig(**GROUPED, **ids, tie_word_embeddings=True)), LLAMA3
    ),
    "Mistral": Case(
        lambda ids: MistralForCausalLM(MistralConfig(**GROUPED, **ids, sliding_window=24)),
        Words(SENTENCEPIECE.special, pieces=True, begins=True, chat=BRACKETS),
        prompt=CHAT,
        sharded=True,
    ),
    "Qwen2": Case(
        lambda ids: Qwen2ForCausalLM(
            Qwen2Config(**GROUPED, **{**ids, "vocab_size": ids["vocab_size"] + 30}, tie_word_embeddings=True)
        ),
        QWEN,
        prompt=CHAT,
    ),
    "Qwen2 with a window": Case(
        lambda ids: Qwen2ForCausalLM(
            Qwen2Config(
                **GROUPED,
                **ids,
                use_sliding_window=True,
                sliding_window=24,
                max_window_layers=1,
                tie_word_embeddings=True,
            )
        ),
        QWEN,
        sharded=True,
        full=True,
    ),
    "Qwen3": Case(
        lambda ids: Qwen3ForCausalLM(Qwen3Config(**GROUPED, **ids, head_dim=8)),
        Words(QWEN.special, chat=THINKING, added=("<|im_start|>", "<think>", "</think>")),
        prompt=CHAT,
        sharded=True,
    ),
    "Gemma 2": Case(lambda ids: Gemma2ForCausalLM(Gemma2Config(**GEMMA, **ids)).bfloat16(), GEMMAS, prompt=CHAT),
    "Gemma 3": Case(lambda ids: Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA, **ids)), GEMMAS, prompt=CHAT, sharded=True),
    "Gemma 3 with images": Case(
        lambda ids: Gemma3ForConditionalGeneration(
            Gemma3Config(
                text_config={**GEMMA, **ids},
                vision_config={**SMALL_EYE},
                mm_tokens_per_image=1,
            )
        ),
        GEMMAS,
        prompt=CHAT,
    ),
    "Phi-3": Case(
        lambda ids: Phi3ForCausalLM(Phi3Config(**GROUPED, **ids, sliding_window=24)),
        Words(
            {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": "<unk>"},
            pieces=True,
            chat=BARS,
            added=("<|user|>", "<|assistant|>", "<|end|>"),
        ),
        targets=["qkv_proj"],
        prompt=CHAT,
    ),
    "Mixtral": Case(
        lambda ids: MixtralForCausalLM(MixtralConfig(**GROUPED, **ids, num_local_experts=3, num_experts_per_tok=2)),
        SENTENCEPIECE,
    ),
    "GPT-2": Case(
        lambda ids: GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=700, initializer_range=0.2, **ids)
        ),
        OPENAI,
    ),
    "GPT-NeoX": Case(lambda ids: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **ids)), OPENAI, sharded=True),
    "OLMo": Case(
        lambda ids: OlmoForCausalLM(OlmoConfig(**SIZES, **ids)),
        Words({"eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}, ends=True),
    ),
    "OLMo 2": Case(lambda ids: Olmo2ForCausalLM(Olmo2Config(**SIZES, **ids)), OPENAI, full=True),
    "BERT": Case(lambda ids: BertForMaskedLM(BertConfig(**SIZES, **ids, max_position_embeddings=700)), OPENAI),
    "T5": Case(
        lambda ids: T5ForConditionalGeneration(
            T5Config(  # type: ignore[call-arg]
                d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, decoder_start_token_id=0, **ids
            )
        ),
        Words({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, pieces=True, ends=True),
    ),
}
