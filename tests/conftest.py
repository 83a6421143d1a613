"""Settings of the whole test run."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import settings

from tests.effort import EXAMPLES

HERE = Path(__file__).parent

# The same examples on every run and machine; time limits would fail on a busy one.
settings.register_profile("vlmkit", deadline=None, max_examples=EXAMPLES, derandomize=True)
settings.register_profile("quick", settings.get_profile("vlmkit"), max_examples=EXAMPLES // 10)
settings.load_profile("vlmkit")

# What `make test-quick` leaves out, by the beginning of its name: whole models generating, peers
# and their imports, counted draws, a package installed by pip. What takes seconds belongs here.
WHOLE = (
    "adapters/test_answering.py",
    "api/test_batch.py",
    "api/test_families.py",
    "api/test_generate.py::test_any_sampling_parameters",
    "api/test_generate.py::test_prefill_step_size_never_changes_the_tokens",
    "api/test_generate.py::test_the_embedded_model_answers",
    "api/test_generate.py::test_thinking_budget_is_exact",
    "api/test_page_examples.py::test_generate_from_a_url",
    "api/test_peers.py",
    "api/test_prompt_types.py",
    "api/test_startup.py",
    "api/test_text_only.py",
    "api/test_user_text.py",
    "api/test_video.py::test_command_line_and_yaml",
    "api/test_video.py::test_one_by_one_streamed_and_in_a_batch",
    "api/test_video.py::test_refused",
    "backend/test_attention.py::test_attention_equals_numpy",
    "backend/test_blas.py::test_a_crash_stays_in_a_process_of_its_own",
    "backend/test_blas.py::test_found",
    "backend/test_blas.py::test_no_blas_and_no_library",
    "backend/test_blas.py::test_the_users_variables_win",
    "backend/test_blas.py::test_wrong_products",
    "backend/test_blas_bfloat16.py::test_a_wrong_library_is_left_out",
    "backend/test_blas_bfloat16.py::test_equals_float32_sums_of_rounded_numbers",
    "backend/test_blas_bfloat16.py::test_it_compiles_without_a_warning",
    "backend/test_blas_bfloat16.py::test_what_is_missing",
    "bench/test_kv.py::test_every_test_has_a_row_for_every_policy",
    "benchmarks/test_reach.py",
    "cache/codec/test_centroids.py::test_centroids_ascend_and_are_symmetric",
    "cache/codec/test_distortions.py::test_distortion_is_as_published",
    "cache/codec/test_kvarn.py::test_blocks_are_read_as_by_the_authors_formulas",
    "cache/codec/test_turboquant.py",
    "cache/test_finishing.py::test_rows_joined_branched_and_selected_go_on_as_before",
    "cache/test_moves.py::test_rows_go_on_as_if_alone_whatever_moves_they_make",
    "cache/test_recent.py",
    "cache/test_shared.py",
    "cache/test_specs.py",
    "cli/test_commands.py::test_a_reader_that_leaves_early_is_no_error",
    "cli/test_commands.py::test_as_a_process",
    "cli/test_commands.py::test_output_on_a_full_disk",
    "cli/test_commands.py::test_what_an_encoding_lacks_is_written_out",
    "cli/test_completion.py",
    "cli/test_continuing.py",
    "cli/test_decoding_methods.py",
    "cli/test_experiment.py",
    "cli/test_recommended.py",
    "cli/test_reproduce.py",
    "cli/test_stages.py::test_a_stage_is_explained",
    "cli/test_stages.py::test_the_example_shows_the_kind_and_runs",
    "cli/test_trace.py",
    "cli/test_worker.py",
    "config/test_tokens.py::test_text_is_resolved_once_and_shown",
    "config/test_tokens.py::test_what_is_no_token_of_the_model_is_refused",
    "contrast/test_reference.py::test_large_vocabularies",
    "conversion/test_convert.py::test_a_kill_leaves_nothing_under_the_name",
    "engine/test_contrast.py",
    "engine/test_contrast_rows.py",
    "engine/test_contrast_transformers.py",
    "engine/test_errors.py",
    "engine/test_finishing_rows.py",
    "engine/test_grammar.py",
    "engine/test_loop.py",
    "engine/test_recurrent_layers.py",
    "engine/test_resolved.py",
    "engine/test_search.py",
    "engine/test_search_ends.py::test_a_search_keeps_no_more_than_the_steps_of_what_is_behind_it",
    "engine/test_search_ends.py::test_a_search_of_one_token_leaves_its_place_to_others",
    "engine/test_search_plan.py::test_what_a_search_takes_is_what_was_planned",
    "engine/test_search_rows.py",
    "engine/test_search_stopping.py",
    "engine/test_shared_chains.py",
    "engine/test_sharing.py::test_a_request_that_waits_takes_the_place_of_one_that_ended",
    "engine/test_sharing.py::test_a_result_holds_its_own_logits_and_no_others",
    "engine/test_stopping_kinds.py",
    "engine/test_unprepared_rows.py::test_it_ends_alone",
    "experiment/data/test_tables.py",
    "experiment/executors/test_heartbeat.py::test_a_worker_has_the_lease_that_it_wrote",
    "experiment/executors/test_heartbeat.py::test_no_clock_of_a_file_or_a_machine_counts",
    "experiment/executors/test_launch.py",
    "experiment/executors/test_worker.py",
    "experiment/kv_eval/test_lockstep.py::test_a_layer_alone_hurts_less_than_all",
    "experiment/kv_eval/test_lockstep.py::test_fewer_bits_are_further_away",
    "experiment/kv_eval/test_lockstep.py::test_keys_and_values_alone_are_codecs_of_such_bits",
    "experiment/kv_eval/test_lockstep.py::test_what_is_compared_is_what_a_plain_forward_says",
    "experiment/kv_eval/test_page.py",
    "experiment/kv_eval/test_run.py",
    "experiment/test_costs.py",
    "experiment/test_invariance.py",
    "experiment/test_kill.py",
    "experiment/test_report_chromium.py",
    "experiment/test_reproduce.py",
    "experiment/test_runner.py",
    "experiments/",
    "hostile/test_addresses.py",
    "hostile/test_checkpoints.py",
    "hostile/test_code.py",
    "hostile/test_configs.py::test_one_line_of_error",
    "hostile/test_data_sets.py",
    "hostile/test_doors.py::test_files_go_through_the_doors",
    "hostile/test_limits.py",
    "hostile/test_preprocessors.py::test_settings",
    "hostile/test_readers.py",
    "hostile/test_requests.py::test_a_vocabulary_is_looked_through_once",
    "hostile/test_requests.py::test_grammars",
    "hostile/test_requests.py::test_requests",
    "hostile/test_templates.py",
    "hostile/test_tokenizer_files.py::test_a_regular_expression_runs_against_the_clock",
    "hostile/test_tokenizers.py::test_tokenizers_from_strangers",
    "loading/test_bad_checkpoints.py::test_unknown_model_type",
    "loading/test_image_settings.py",
    "loading/test_json_values.py",
    "loading/test_load_model.py::test_every_dialect_gives_the_same_logits",
    "loading/test_load_model.py::test_every_scheme_packed_and_unpacked",
    "loading/test_load_model.py::test_nothing_heavy_is_imported",
    "loading/test_text.py",
    "loading/test_text_memory.py",
    "loading/test_text_part.py",
    "loading/test_token_names.py",
    "models/test_families.py::test_nothing_but_the_families_knows_a_family",
    "models/test_lm_adapter.py",
    "models/test_parity.py",
    "models/test_qwen3_5.py::test_padding_and_cuts_leave_no_trace_in_states",
    "models/test_video.py::test_prompt_and_decode_logits_match_transformers",
    "preprocess/test_addresses.py::test_host_names",
    "preprocess/test_addresses.py::test_paths",
    "preprocess/test_fetch.py",
    "processors/test_calling.py",
    "processors/test_chat_template.py::test_equals_transformers",
    "processors/test_continuing.py::test_equals_transformers",
    "processors/test_loading.py::test_a_tokenizer_that_transformers_cannot_read",
    "processors/test_loading.py::test_image_settings",
    "processors/test_qwen2_vl.py::test_both_backends_agree",
    "processors/test_qwen2_vl.py::test_equals_transformers",
    "processors/test_qwen2_vl.py::test_smart_resize_equals_transformers",
    "processors/test_qwen3_5.py::test_images_are_those_of_transformers",
    "processors/test_token_bytes.py::test_the_transformers_backend",
    "processors/test_tokenizer.py::test_equals_transformers",
    "processors/test_tokenizer.py::test_ids_without_a_token_decode_to_nothing",
    "prompts/test_branching.py",
    "prompts/test_cache.py::test_equal_prompts_of_a_batch",
    "prompts/test_cache.py::test_keeping_prompts_copies_no_cache",
    "prompts/test_prefill.py::test_each_picture_of_a_batch_is_computed_once",
    "prompts/test_shared_prefix.py::test_a_long_prompt_takes_its_bytes_once",
    "prompts/test_shared_prefix.py::test_samples_of_two_prompts_are_those_of_copies",
    "ranks/test_ranks_in_trouble.py",
    "ranks/test_two_ranks.py",
    "sampling/test_draw.py::test_frequencies",
    "sampling/test_grammar_mistakes.py::test_llguidance_is_loaded",
    "sampling/test_grammar_schemas.py",
    "sampling/test_keys.py::test_frequencies",
    "sampling/test_mirostat_v1.py::test_it_steers_the_surprise_of_a_zipf_text",
    "sampling/test_orders.py",
    "sampling/test_peers.py",
    "sampling/test_preset_defects.py",
    "sampling/test_presets.py",
    "sampling/test_windows.py::test_every_stage_with_a_large_number_runs_as_with_all",
    "search/test_transformers.py",
    "stopping/test_uncertainty.py::test_entropy_ends_a_row",
    "test_any_prompt.py",
    "test_bad_input.py::test_broken_checkpoint",
    "test_bad_input.py::test_unusable_image",
    "test_external.py",
    "test_packaging.py",
    "test_prefill_decode.py::test_a_prefix_can_be_continued",
    "test_prefill_decode.py::test_defect_9_batch_and_single_rows_run_the_same_policy",
    "test_prefill_decode.py::test_logits_do_not_depend_on_step_size",
    "test_prefill_decode.py::test_peak_memory",
    "test_prefill_decode.py::test_rows_that_join_and_leave_go_on_as_alone",
    "test_readme.py",
    "trace/test_picture.py",
    "trace/test_table.py::test_lines_fit",
)


def is_quick(config: pytest.Config) -> bool:
    return "not whole" in config.option.markexpr


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    left_out = tuple(f"tests/{name}" for name in WHOLE)
    for item in items:
        if item.nodeid.startswith(left_out):
            item.add_marker("whole")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # the tests themselves live to the end: no use in looking through them


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # What `make test-quick` leaves out as a whole is not even imported: it may import a peer.
    name = str(collection_path.relative_to(HERE))
    if is_quick(config) and name.startswith(tuple(name for name in WHOLE if "::" not in name)):
        return True
    # Doctests are for vlmkit: collecting them here would import helpers that need torch.
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files instead of comparing"
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
