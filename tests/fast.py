"""What ``make test-fast`` leaves out, beside what is marked slow: files, or the beginnings of names of tests.

They compile programs of their own for more than some seconds, or try hundreds of inputs. What stays holds the design, the
language of formulas, mixed models, tables and words, intervals, a bootstrap of a mediation, and the criterion against the
naive one.
"""

FULL = (
    "properties/test_bad_input.py",
    "properties/test_invariances.py",
    "properties/test_origins.py::test_effects_do_not_depend",
    "properties/test_origins.py::test_origin_and_unit_of_a_column_of_a_mediation",
    "properties/test_weights.py",
    "reference/test_designs.py",
    "reference/test_mediate.py",
    "transforms/test_transforms.py",
    "unit/test_bad_input_tables.py",
    "unit/test_booleans.py",
    "unit/test_bootstrap.py::test_a_resample_without_variation",
    "unit/test_carried.py::test_a_replicate_of_rows",
    "unit/test_coding.py::test_tables_words_figures",
    "unit/test_criterion.py::test_derivatives",
    "unit/test_designs.py",
    "unit/test_devices.py",
    "unit/test_docstrings.py::test_an_example_prints_what_it_says[api: mediate",
    "unit/test_docstrings.py::test_an_example_prints_what_it_says[gram: GramData.mediate",
    "unit/test_docstrings.py::test_an_example_prints_what_it_says[report.results: MediationResult.cluster_effects",
    "unit/test_docstrings.py::test_an_example_prints_what_it_says[report.results: MediationResult.influence",
    "unit/test_docstrings.py::test_an_example_prints_what_it_says[report.shown: Curved.moderation",
    "unit/test_figures.py",
    "unit/test_files.py",
    "unit/test_gram_data.py",
    "unit/test_lmm_bootstrap.py",
    "unit/test_memory.py",
    "unit/test_mlmem.py",
    "unit/test_moderation.py",
    "unit/test_newton.py",
    "unit/test_plots.py",
    "unit/test_process.py",
    "unit/test_programs.py",
    "unit/test_progress.py",
    "unit/test_report.py",
    "unit/test_results.py",
    "unit/test_schemes.py",
    "unit/test_seeds.py",
    "unit/test_small.py",
    "unit/test_storage.py",
)
