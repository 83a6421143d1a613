"""The one table of what other toolkits call it, and what it is called here.

The names are those of transformers, vLLM, llama.cpp and Ollama, mlx-lm and mlx-vlm, and the OpenAI
API. API, command line and YAML all ask `vlmkit.names.words`, which says each in its own terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vlmkit.names.places import Place


class Param(NamedTuple):
    """One of our own keyword parameters."""

    name: str
    note: str = ""


class Words(NamedTuple):
    """Something without a counterpart: what to do instead."""

    text: str


Target = Param | Place | Words

_OURS: Mapping[str, str] = {
    "temperature": "temp",
    "top_p": "nucleus nucleus_p nucleus_sampling",
    "top_k": "top_n",
    "max_tokens": "max_new_tokens max_length num_predict n_predict max_completion_tokens "
    "max_output_tokens max_gen_toks",
    "stop": "stop_strings stop_sequences stop_sequence stop_words stop_string",
    "repetition_penalty": "repeat_penalty rep_pen",
    "repetition_context_size": "repetition_window repeat_last_n repeat_window",
    "presence_penalty": "presence",
    "frequency_penalty": "frequency",
    "seed": "random_seed rng_seed",
    "image": "image_path image_url image_file picture pictures",
    "prompt": "text question query input inputs user_prompt",
    "model": "model_path model_name model_id model_name_or_path path_or_hf_repo checkpoint",
    "dtype": "torch_dtype precision",
    "enable_thinking": "thinking think reasoning",
    "thinking_budget": "max_thinking_tokens thinking_token_budget reasoning_budget",
    "kv_bits": "cache_bits kv_cache_bits",
    "kv_group_size": "cache_group_size q_group_size",
    "max_kv_size": "cache_size max_cache_size kv_size",
    "prefill_step_size": "prefill_chunk_size n_batch",
    "logit_bias": "logits_bias token_bias",
}
_STAGES: Mapping[Place, str] = {
    Place("sampling", "greedy"): "argmax",
    Place("sampling", "typical_p", "p"): "typical_p typical typ_p",
    Place("sampling", "epsilon_cutoff", "epsilon"): "epsilon_cutoff",
    Place("sampling", "eta_cutoff", "epsilon"): "eta_cutoff",
    Place("sampling", "tail_free", "z"): "tfs tfs_z tail_free_sampling",
    Place("sampling", "top_h", "h"): "top_h",
    Place("sampling", "top_n_sigma", "n"): "top_n_sigma top_nsigma nsigma",
    Place("sampling", "xtc", "probability"): "xtc_probability",
    Place("sampling", "xtc", "threshold"): "xtc_threshold",
    Place("sampling", "xtc", "protected_ids"): "xtc_special_tokens",
    Place("sampling", "dry", "multiplier"): "dry_multiplier",
    Place("sampling", "dry", "base"): "dry_base",
    Place("sampling", "dry", "allowed_length"): "dry_allowed_length",
    Place("sampling", "dry", "context_size"): "dry_penalty_last_n",
    Place("sampling", "dry", "breaker_ids"): "dry_sequence_breakers dry_sequence_breaker",
    Place("sampling", "mirostat_v2"): "mirostat mirostat_mode",
    Place("sampling", "mirostat_v2", "tau"): "mirostat_tau mirostat_ent",
    Place("sampling", "mirostat_v2", "eta"): "mirostat_eta mirostat_lr",
    Place("sampling", "dynamic_temperature"): "dynatemp_range",
    Place("sampling", "dynamic_temperature", "min_temperature"): "dynatemp_low",
    Place("sampling", "dynamic_temperature", "max_temperature"): "dynatemp_high",
    Place("sampling", "dynamic_temperature", "exponent"): "dynatemp_exponent",
    Place("sampling", "quadratic", "factor"): "smoothing_factor",
    Place("sampling", "no_repeat_ngram", "n"): "no_repeat_ngram_size no_repeat_n_gram",
    Place("sampling", "suppress_tokens", "token_ids"): "bad_words_ids bad_words suppress_tokens",
    Place("sampling", "allowed_tokens", "token_ids"): "allowed_token_ids",
    Place("sampling", "min_new_tokens", "num_tokens"): "min_new_tokens",
    Place("sampling", "min_new_tokens", "token_ids"): "begin_suppress_tokens",
    Place("sampling", "grammar", "json_schema"): "guided_json json_schema response_format "
    "structured_outputs format",
    Place("sampling", "grammar", "regex"): "guided_regex guided_choice regex",
    Place("sampling", "grammar", "lark"): "guided_grammar grammar grammar_file gbnf",
    Place("stopping", "stop_token_ids", "sequences"): "stop_token_ids",
    Place("stopping", "eos", "min_tokens"): "min_tokens min_length",
    Place("stopping", "stop_sequences", "include"): "include_stop_str_in_output",
    Place("stopping", "time_limit", "seconds"): "max_time timeout time_limit",
    Place("search", "beam", "num_beams"): "num_beams beam_size beam_width beam_search",
    Place("search", "beam", "length_penalty"): "length_penalty",
    Place("search", "beam", "early_stopping"): "early_stopping",
    Place("search", "beam", "num_return"): "num_return_sequences",
    Place("search", "diverse_beam", "num_groups"): "num_beam_groups",
    Place("search", "diverse_beam", "diversity_penalty"): "diversity_penalty",
    Place("search", "contrastive_search", "alpha"): "penalty_alpha",
    Place("contrast", "cfg", "scale"): "guidance_scale cfg_scale",
    Place("contrast", "cfg", "negative_prompt"): "negative_prompt negative_prompt_ids",
    Place("contrast", "dola", "layers"): "dola_layers",
    Place("contrast", "vcd", "alpha"): "cd_alpha",
    Place("contrast", "vcd", "beta"): "cd_beta",
    Place("contrast", "contrastive_decoding", "amateur"): "amateur_model student_model",
    Place("cache", "rotating"): "sliding_window streaming_llm sink",
    Place("cache", "rotating", "keep"): "attention_sink_size num_sink_tokens n_keep num_keep",
    Place("cache", "affine"): "quantized quantized_cache",
    Place("cache", "affine", "key_bits"): "cache_type_k",
    Place("cache", "affine", "value_bits"): "cache_type_v",
}
_ELSEWHERE: Mapping[str, str] = {
    "do_sample": "temperature=0 is greedy, above 0 samples (in a config, {kind: greedy} or "
    "{kind: temperature, temperature: …} in sampling)",
    "min_tokens_to_keep": "every cutoff keeps at least one token, there is no other minimum; "
    "leave it out",
    "prompt_ignore_length": "repetition_penalty counts the last context_size tokens of prompt and "
    "answer; presence_penalty and frequency_penalty count the answer alone",
    "encoder_repetition_penalty exponential_decay_length_penalty sequence_bias forced_bos_token_id "
    "forced_eos_token_id watermarking_config token_healing": "there is no such stage; one of your "
    "own is {kind: external} in sampling",
    "renormalize_logits remove_invalid_values": "a stage normalises where it needs to; leave it "
    "out",
    "sampler samplers sampler_seq logits_processor logits_processors processors": "stages "
    "stand in a config's list sampling, and run in its order",
    "stopping_criteria stopping_criterion": "criteria stand in a config's list stopping",
    "ignore_eos": "give stopping: [{kind: max_tokens, max_tokens: …}], without {kind: eos}",
    "prompt_cache past_key_values": "generate(..., prompt_cache=PromptCache()) in Python keeps "
    "prompts from call to call",
    "quantized_kv_start": "the KV cache is quantized from the first token on",
    "use_cache": "there is always a KV cache; leave it out",
    "cache_implementation cache_type cache_config": "give cache: {kind: dense}, rotating or affine",
    "num_ctx n_ctx max_model_len context_length": "the KV cache grows as it must; max_kv_size "
    "limits it",
    "draft_model num_draft_tokens assistant_model prompt_lookup_num_tokens": "there is no "
    "speculative decoding; leave it out",
    "n best_of num_samples num_return": "equal rows of vlmkit.batch.batch_pipeline are separate "
    "samples",
    "logprobs top_logprobs output_scores return_dict_in_generate prompt_logprobs": "every result "
    "has logprobs; `vlmkit generate --json --logprobs` prints them",
    "stream streamer streaming": "stream_generate yields token by token; the command line streams "
    "unless it gets --no-stream",
    "messages message conversation chat_history": "messages at the top of a "
    "config; in Python, vlmkit.prompt_utils.apply_chat_template turns them into a prompt",
    "system system_prompt system_message": "it is a message of the role system, in a "
    "config's messages; in Python, vlmkit.prompt_utils.apply_chat_template takes it",
    "tools tool_choice functions": "tools go through vlmkit.prompt_utils.apply_chat_template in "
    "Python",
    "chat_template": "it is the checkpoint's; for a prompt that is formatted already, give "
    "template: {apply: false}",
    "input_ids pixel_values attention_mask inputs_embeds image_grid_thw": "give prompt and image; "
    "ids, pixels and masks are made of them",
    "pad_token_id pad_token bos_token_id": "rows need no padding token; leave it out",
    "trust_remote_code": "load(..., trust_remote_code=True) in Python; configs and commands run no "
    "code of a checkpoint",
    "trust_code": "no config can trust itself: give --trust-code, or load_run(..., "
    "trust_code=True)",
    "adapter_path adapter lora lora_path": "merge adapters into the checkpoint first",
    "device device_map": "MLX chooses the device; mlx.core.set_default_device in Python",
    "batch_size": "batch_generate takes it",
    "verbose": "`vlmkit generate --json` prints the timing; generate(verbose=True) in Python",
    "config config_file": "a config stands without a flag: vlmkit generate run.yaml",
    "set override overrides": "an override stands without a flag: seed=3",
    "output output_file": "the answer goes to standard output; `vlmkit trace --out` keeps a run",
}

FOREIGN: Mapping[str, Target] = {
    **{name: Param(ours) for ours, names in _OURS.items() for name in names.split()},
    **{name: place for place, names in _STAGES.items() for name in names.split()},
    **{name: Words(text) for names, text in _ELSEWHERE.items() for name in names.split()},
    "images": Param("image", "batch_generate has images"),
    "audios": Param("audio", "batch_generate has audios"),
    "videos": Param("video", "batch_generate has videos"),
    "video_fps": Param("fps"),
    "max_num_frames": Param("max_frames"),
    "num_frames": Param("max_frames", "or fps"),
    "nframes": Param("max_frames", "or fps"),
    "image_size": Param("resize_shape", "height and width in pixels"),
    "resize": Param("resize_shape", "height and width in pixels"),
    "p": Param("top_p"),
    "k": Param("top_k"),
    "eos_token_id": Param(
        "eos_tokens", "token strings; ids: {kind: eos, token_ids: …} in stopping"
    ),
    "eos_token_ids": Place("stopping", "eos", "token_ids"),
}

SHORT_FLAGS: Mapping[str, str] = {
    "-m": "--model",
    "-p": "--prompt",
    "-i": "--image",
    "-n": "--max-tokens",
}

# What 0, -1 or nothing means elsewhere, for fields and parameters that refuse them.
_LEFT_OUT = "to switch it off, leave the stage out"
OFF_FIELDS: Mapping[tuple[str, str], str] = {
    ("temperature", "temperature"): "for greedy decoding write {kind: greedy}",
    ("top_p", "p"): "to keep one token write {kind: greedy}; to keep all, leave the stage out",
    ("top_k", "k"): _LEFT_OUT,
    ("min_p", "p"): _LEFT_OUT,
    ("typical_p", "p"): _LEFT_OUT,
    ("top_n_sigma", "n"): _LEFT_OUT,
    ("top_h", "h"): _LEFT_OUT,
    ("tail_free", "z"): _LEFT_OUT,
    ("quadratic", "factor"): _LEFT_OUT,
    ("no_repeat_ngram", "n"): _LEFT_OUT,
    ("repetition_penalty", "penalty"): _LEFT_OUT,
    ("presence_penalty", "penalty"): _LEFT_OUT,
    ("frequency_penalty", "penalty"): _LEFT_OUT,
    ("xtc", "threshold"): _LEFT_OUT,
    ("dynamic_temperature", "min_temperature"): "for greedy decoding write {kind: greedy}",
    ("max_tokens", "max_tokens"): "for no limit, leave it out",
    ("time_limit", "seconds"): "for no limit, leave it out",
    ("rotating", "max_size"): "to keep all tokens write cache: {kind: dense}",
}
OFF_PARAMS: Mapping[str, str] = {
    "temperature": "0 is greedy",
    "top_p": "1 is off",
    "top_k": "0 is off",
    "min_p": "0 is off",
    "repetition_penalty": "1 is off",
    "repetition_context_size": "it is a number of tokens; for all of them write a config",
    "max_kv_size": "leave it out to keep all tokens",
    "thinking_budget": "leave it out for no limit",
}
