"""Which tests are quick, which wait to be asked for, and which are run with optimizations, too.

`pytest -m quick` touches every room of the package in under two minutes. `pytest` alone runs every
test, but of some tests with many cases only those that `SOME` names; `pytest --all-cases` runs all,
and so does a file or a test that is named. The suite compiles without most optimizations of XLA;
with `OPTIMIZED=1` set it compiles as users do, for which `-m optimized` are the tests that could
tell a difference, with the cases that `SOME` leaves.

`test_quick.py` fails if a row names what is not there, if a room of the package has no row, or if a
file of tests has neither a row nor a place in `WITHOUT`.
"""

import fnmatch

import pytest

#: Room -> "file::function": the first case of a test; with [pattern] the cases that it fits.
ROOMS = {
    "_validate": [
        "test_arguments::test_numbers_out_of_range",
        "test_arguments::test_intervals",
        "test_arguments::test_flags",
        "test_arguments::test_no_parameters",
    ],
    "structures": [
        "test_structures::test_conformance[*-5-single-float32-jit]",
        "test_structures::test_golden[*-5]",
        "test_structures::test_serialization_and_key_paths[*]",
        "test_structures::test_transposed_products_in_low_precision[*]",
        "test_structure_names::test_names[*]",
        "test_structure_names::test_unknown_structure[*]",
        "test_blocks::test_balanced_sizes[*]",
        "test_blocks::test_operations_with_a_bias[*]",
        "test_blocks::test_auto_does_not_count_the_bias",
        "test_custom_structure::test_other_numbers_than_entries",
    ],
    "layers": [
        "test_errors::test_replace_and_without",
        "test_batches::test_memory_of_convolutions",
        "test_batches::test_micro_batches",
        "test_weights::test_padding_leaves_no_trace",
        "test_tied::test_large_vocabulary_has_no_square",
        "test_paths::test_fields_called_value",
        "test_matrix_axes::test_matrices[*]",
        "test_matrix_axes::test_errors",
        "test_measures::test_means_of_drawn_gradients_are_refused",
        "test_measure_kinds::test_every_kind[dense]",
        "test_curvature_models::test_of_the_exact_fisher",
    ],
    "placement": ["test_curvature_meshes::test_split_layers[eva]"],
    "rules": [
        "test_damping::test_damping_is_what_rows_leave_open[12-*]",
        "test_curvature_rules::test_rule[EvaF]",
        "test_combinators::test_errors",
        "test_curvature_oracles::test_foof_is_ridge_regression",
        "test_rules::test_spectral_step_stays_bounded_and_invertible",
        "test_rules::test_fixed_point_of_dense_singd_is_the_inverse",
        "test_kfac::test_factored_damping",
        "test_shampoo::test_roots_are_exact_in_float64",
        "test_caspr::test_errors",
        "test_polar::test_muon",
        "test_polar::test_longer_iterations_are_exact[*]",
        "test_polar::test_errors",
        "test_inverse_free_shampoo::test_fixed_point",
        "test_soap::test_without_bases_it_is_adamw[identity]",
        "test_kl_shampoo::test_trajectory[kl_shampoo]",
        "test_psgd_kron::test_trajectory[QUAD]",
        "test_normuon::test_trajectory",
        "test_inverse_free_kl_shampoo::test_trajectory",
        "test_splus::test_trajectory",
        "test_sm3::test_trajectory",
        "test_mini_block_fisher::test_one_position_is_the_diagonal",
        "test_mini_block_fisher::test_errors",
        "test_shampoo_relatives::test_a_sketch_has_no_square",
        "test_shampoo_relatives::test_errors",
        "test_golden::test_trajectory[mlp_dense]",
        "test_golden::test_trajectory[mlp_ikfac]",
    ],
    "transforms": [
        "test_sample_weights::test_errors",
        "test_hybrid::test_the_rule",
        "test_levenberg_marquardt::test_errors",
        "test_transforms::test_trains_with_one_compilation_and_a_constant_state",
        "test_transforms::test_fallback_gets_exactly_the_rest",
        "test_groups::test_as_if_apart[singd-*]",
        "test_groups::test_by_path",
        "test_staggering::test_each_step_has_its_share",
        "test_contract::test_state",
        "test_contract::test_wrappers",
        "test_running_size::test_a_vanished_gradient",
        "test_range::test_spectral_bound_of_any_size",
        "test_gradient_rules::test_gradients_that_are_not_finite_change_no_factor",
    ],
    "capture": [
        "test_gate::test_a_step_may_refresh_whatever_the_schedule_says",
        "test_capture::test_leading_axes_sharing_and_averages",
        "test_capture::test_scan_over_layers",
        "test_capture::test_shared_kernel_under_vmap_is_a_batch",
        "test_capture::test_one_forward_and_one_backward_pass",
        "test_kinds::test_statistics",
        "test_kinds::test_reasons",
        "test_tag::test_hand_written",
        "test_fisher::test_ggn_is_exact",
        "test_gauss_newton::test_exact_in_its_setting",
        "test_mistakes::test_forgotten_curvature",
        "test_sessions::test_what_has_a_layer_is_traced_by_each",
        "test_loss_functions::test_what_a_loss_does_to_its_params_does_not_touch_statistics",
        "test_loss_functions::test_other_uses_are_refused",
        "test_loss_functions::test_bad_weights",
        "test_register_layer::test_equation_of_the_call",
        "test_register_layer::test_errors",
        "test_haiku_and_equinox::test_haiku",
        "test_unpromised::test_names_of_primitives",
        "test_unpromised::test_layout_changes_are_followed",
        "test_unpromised::test_operands_of_loops",
        "test_unpromised::test_marks",
        "test_unpromised::test_the_dict_of_a_scope",
        "test_unpromised::test_interceptors_inside_of_lifted_transforms",
        "test_unpromised::test_defaults_of_linen",
        "test_unpromised::test_raw_values_of_nnx",
        "test_unpromised::test_classes_of_nnx",
        "test_unpromised::test_the_state_of_multi_steps",
        "test_unpromised::test_masked_nodes",
        "test_unpromised::test_a_program_that_cannot_be_read_is_said_with_the_versions",
    ],
    "curvature": [
        "test_fit_curvature::test_operations_are_those_of_a_dense_matrix",
        "test_fit_curvature::test_errors_of_a_curvature",
        "test_laplace::test_exact_posterior",
        "test_laplace::test_exact_evidence",
        "test_explicit_curvature::test_no_mesh_is_set",
        "test_prior::test_the_exact_optimum[*]",
        "test_influence::test_leaving_out_for_real",
        "test_influence::test_what_can_be_removed",
    ],
    "nnx": [
        "test_nnx::test_statistics_equal_linens",
        "test_nnx::test_scan",
        "test_nnx::test_vmap",
        "test_nnx::test_tag",
        "test_nnx::test_errors",
    ],
    "measures": [
        "test_recipe::test_strides",
        "test_recipe::test_wrong_fractions[*]",
        "test_arguments::test_largest_divisor",
        "test_positions::test_enough_is_left",
        "test_positions::test_options_and_table",
    ],
    "optimizers": [
        "test_contract::test_everything_is_registered",
        "test_optimizers::test_every_option_is_described_once",
        "test_optimizers::test_unknown_and_renamed_options",
        "test_optimizers::test_no_side_is_the_gradient",
        "test_every_optimizer::test_looked_into[eva_f]",
        "test_recipe::test_products_of_other_factors_are_not_kept",
        "test_precision::test_loss_scale_changes_nothing_in_float32",
        "test_errors::test_hyperparameters_of_aliases",
        "test_benchmarks::test_every_optimizer_takes_a_step",
    ],
    "sharding": [
        "test_sharding::test_trajectory",
        "test_sharding::test_boxes_and_rules",
        "test_sharding::test_errors",
    ],
    "diagnostics": [
        "test_diagnostics::test_metrics_inside_of_jit",
        "test_diagnostics::test_step_memory",
        "test_diagnostics::test_errors",
    ],
    "training": [
        "test_accumulation::test_optax_multi_steps_is_refused",
        "test_flax::test_train_state",
        "test_flax::test_nnx_optimizers_forward_curvature",
        "test_checkpoints::test_other_differences",
        "test_other_states::test_states_of_other_optimizers",
    ],
    "testing": [
        "test_structures::test_kit_catches_a_wrong_structure",
        "test_check_layers::test_tagged",
        "test_check_layers::test_lies",
        "test_check_rule::test_what_is_wrong_is_found",
        "test_deprecations::test_deprecations_are_errors_in_this_package[*]",
    ],
    "the package and its files": [
        "test_package::test_imports_point_down[*]",
        "test_package::test_no_private_modules_of_others[*]",
        "test_package::test_small_files",
        "test_package::test_public_names",
        "test_package::test_every_public_name_is_documented",
        "test_package::test_the_oldest_versions_are_those_of_the_constraints",
        "test_quick::test_every_room_has_a_row",
        "test_quick::test_rows_name_tests_that_exist",
        "test_quick::test_every_file_of_tests_has_a_quick_test",
        "test_readme::test_commands",
        "test_notebooks::test_outputs_are_stripped[*]",
        "test_pod_totals::test_loops_are_multiplied_out",
    ],
}

#: One optimizer of each family, for tests that are run for every one of them.
FAMILIES = ["singd", "ikfac", "kfac", "ekfac", "eva_f", "shampoo", "soap", "psgd_kron"]
OF_GRADIENTS = ["shampoo", "soap", "psgd_kron", "normuon"]

#: Of tests whose cases are many or long and differ in little: those that are run without
#: `--all-cases`, as patterns. A case that is in none of them has neighbours which are.
SOME = {
    "test_check_rule::test_rule": ["SINGD", "KFAC", "polar SINGD", "SOAP", "EvaS"],
    "test_contract::test_state": [*FAMILIES, "optimizer", "scale_by_*with*"],
    "test_contract::test_every_wrapper_at_once": [*FAMILIES, "optimizer"],
    "test_contract::test_scan_over_steps_of_an_ensemble": FAMILIES,
    "test_contract::test_injected_hyperparameters_and_schedules": FAMILIES,
    "test_contract::test_x64": ["singd*", "kfac*"],
    "test_range::test_losses_of_any_size": ["singd-*", "kfac-*", "eva_f-*", "shampoo-*", "soap-*"],
    "test_running_size::test_no_gradient_no_update": FAMILIES,
    "test_every_optimizer::test_on_a_mesh": [*FAMILIES, "polar singd"],
    "test_every_optimizer::test_accumulated": FAMILIES,
    "test_every_optimizer::test_sizes": FAMILIES,
    "test_every_optimizer::test_looked_into": FAMILIES,
    "test_every_optimizer::test_a_damaged_state_is_seen": FAMILIES,
    "test_diagnostics::test_rules_of_gradients_alone": ["True-shampoo", "False-soap"],
    "test_gradient_rules::test_low_precision_parameters": OF_GRADIENTS,
    "test_gradient_rules::test_schedules": OF_GRADIENTS,
    "test_gradient_rules::test_gradients_that_are_not_finite_change_no_factor": OF_GRADIENTS,
    "test_gradient_rules::test_masks_partitions_and_chains": OF_GRADIENTS,
    "test_gradient_rules::test_vectors_pass_through_and_get_adamw_in_the_recipe": OF_GRADIENTS,
    "test_curvature_rules::test_rule": ["EKFAC", "TKFAC", "FOOF", "EvaF", "MKOR", "mixed"],
    "test_groups::test_as_if_apart": ["singd-*", "diagonal-*", "blocks-True", "kfac-True"],
    "test_curvature_meshes::test_split_batches_and_kernels": ["singd", "ekfac", "eva"],
    "test_curvature_models::test_trains": ["singd", "ekfac", "eva_f"],
    "test_measure_kinds::test_every_kind": ["dense", "conv1", "conv2_groups", "general*", "e*"],
    "test_check_layers::test_architecture": ["gcn", "unet"],
    "test_architectures::test_architecture": ["resnet", "vit", "lstm"],
    "test_gate::test_trajectories": ["None-empirical", "128.0-mc"],
    "test_matrix_axes::test_complete_optimizers": ["each-*", "*-shampoo"],
    "test_sharding::test_family": ["kfac-*", "shampoo-Auto"],
    "test_structures::test_conformance": [
        "*-5-*",
        "*-1-single-float32-jit",
        "*-2-3-float32-jit",
        "*-17-single-float32-eager",
        "*-17-3-bfloat16-jit",
        "*-33-single-float64-jit",
    ],
    "test_notebooks::test_runs": ["1_*", "4_*"],
}

#: What a program that users compile does in other ways: sums and products in other orders, buffers
#: that are shared, branches that are merged.
OPTIMIZED = [
    "test_golden::test_trajectory[*]",
    "test_structures::test_conformance[*-5-single-float32-jit]",
    "test_structures::test_transposed_products_in_low_precision[*]",
    "test_transforms::test_trains_with_one_compilation_and_a_constant_state[*]",
    "test_transforms::test_bfloat16_factors_and_params[*]",
    "test_contract::test_state[*]",
    "test_capture::test_scan_over_layers[*]",
    "test_gate::test_trajectories[*]",
    "test_groups::test_as_if_apart[singd-*]",
    "test_gradient_rules::*",
    "test_polar::test_in_bfloat16[*]",
    "test_precision::*",
    "test_range::*",
    "test_diagnostics::test_step_memory*",
    "test_batches::test_memory_of_convolutions[*]",
    "test_sharding::test_trajectory[*]",
    "test_benchmarks::test_quickstart",
    "test_readme::test_example",
]

#: Files of tests that have no quick one.
WITHOUT = {"test_architectures"}


def _fitting(item):
    """The rows of ``SOME`` that have this case; anything but an empty set if its test has none."""
    name, _, case = item.name.partition("[")
    test, case = f"{item.path.stem}::{name}", case.removesuffix("]")
    return {(test, p) for p in SOME.get(test, ["*"]) if fnmatch.fnmatchcase(case, p)}


def is_optimized(item):
    """Whether a collected test is one of ``OPTIMIZED``, and not left out by ``SOME``."""
    name = f"{item.path.stem}::{item.name}"
    rows = (row.replace("[*]", "*").replace("[", "[[]") for row in OPTIMIZED)
    return any(fnmatch.fnmatchcase(name, row) for row in rows) and bool(_fitting(item))


def left_out_of(items):
    """Those of all tests of the suite that only ``--all-cases`` runs."""
    unused = {(test, pattern) for test, patterns in SOME.items() for pattern in patterns}
    unused.difference_update(*map(_fitting, items))
    if unused:
        raise pytest.UsageError(f"No test is named so, but in tests/quick.py: {sorted(unused)}")
    return [item for item in items if not _fitting(item)]


def of_file(stem):
    """Function -> pattern of its cases, None for the first, of one file of tests."""
    rows = (row.split("::") for rows in ROOMS.values() for row in rows)
    return {
        name: cases.removesuffix("]") if bracket else None
        for file, test in rows
        if file == stem
        for name, bracket, cases in [test.partition("[")]
    }


def quick_of(items):
    """The quick ones of collected tests."""
    begun = set()
    for item in items:
        wanted = of_file(item.path.stem)
        name, _, cases = item.name.partition("[")
        if name in wanted:
            pattern = wanted[name]
            first = (item.path, name) not in begun
            begun.add((item.path, name))
            if first if pattern is None else fnmatch.fnmatchcase(cases.removesuffix("]"), pattern):
                yield item
