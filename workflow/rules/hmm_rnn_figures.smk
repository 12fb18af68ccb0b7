"""hmm_rnn: figures, drawn from files alone.

Inputs: what hmm_rnn.smk makes.
Outputs, per run: see FIGURES (as .pdf and .png) and PAGES in strata.hmm_rnn.config.
Steps: each figure by itself.
"""


rule hmm_rnn_plot:
    """Draw the course of training, with floor and memoryless plateau."""
    input:
        modules(
            "hmm_rnn.plot",
            "layouts",
            "hmm_rnn.comparison_panels",
            "plotting",
        ),
        history="results/{run}/history.h5",
        hmm="results/{run}/hmm.h5",
    output:
        loss_curves="results/{run}/loss_curves.pdf",
        loss_curves_image=report(
            "results/{run}/loss_curves.png",
            caption="../report/hmm_rnn_loss_curves.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "loss curves"},
        ),
    log:
        "results/{run}/logs/plot.log",
    benchmark:
        "results/{run}/benchmarks/plot.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot --history {input.history:q} --hmm {input.hmm:q}"
        " --loss-curves {output.loss_curves:q}"
        " --loss-curves-image {output.loss_curves_image:q} > {log:q} 2>&1"


rule hmm_rnn_plot_statistics:
    """Draw what the symbols are like: distances, volatilities, frequencies, transitions."""
    input:
        modules(
            "hmm_rnn.plot_statistics",
            "hmm_rnn.figure_inputs",
            "layouts",
            "hmm_rnn.comparison_panels",
            "hmm_rnn.matrix_panels",
            "plotting",
        ),
        evaluation="results/{run}/evaluation.h5",
    output:
        euclidean_distances="results/{run}/euclidean_distances.pdf",
        euclidean_distances_image=report(
            "results/{run}/euclidean_distances.png",
            caption="../report/hmm_rnn_euclidean_distances.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "matched distances"},
        ),
        observation_volatilities="results/{run}/observation_volatilities.pdf",
        observation_volatilities_image=report(
            "results/{run}/observation_volatilities.png",
            caption="../report/hmm_rnn_observation_volatilities.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "volatilities"},
        ),
        output_frequencies="results/{run}/output_frequencies.pdf",
        output_frequencies_image=report(
            "results/{run}/output_frequencies.png",
            caption="../report/hmm_rnn_output_frequencies.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "frequencies"},
        ),
        transition_matrices="results/{run}/transition_matrices.pdf",
        transition_matrices_image=report(
            "results/{run}/transition_matrices.png",
            caption="../report/hmm_rnn_transition_matrices.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "output transitions"},
        ),
    log:
        "results/{run}/logs/plot_statistics.log",
    benchmark:
        "results/{run}/benchmarks/plot_statistics.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot_statistics --evaluation {input.evaluation:q}"
        " --euclidean-distances {output.euclidean_distances:q}"
        " --euclidean-distances-image {output.euclidean_distances_image:q}"
        " --observation-volatilities {output.observation_volatilities:q}"
        " --observation-volatilities-image {output.observation_volatilities_image:q}"
        " --output-frequencies {output.output_frequencies:q}"
        " --output-frequencies-image {output.output_frequencies_image:q}"
        " --transition-matrices {output.transition_matrices:q}"
        " --transition-matrices-image {output.transition_matrices_image:q}"
        " > {log:q} 2>&1"


rule hmm_rnn_plot_likelihood:
    """Draw how likely the symbols are under the hidden Markov model."""
    input:
        modules(
            "hmm_rnn.plot_likelihood",
            "hmm_rnn.figure_inputs",
            "layouts",
            "hmm_rnn.comparison_panels",
            "plotting",
        ),
        evaluation="results/{run}/evaluation.h5",
    output:
        log_likelihood="results/{run}/log_likelihood.pdf",
        log_likelihood_image=report(
            "results/{run}/log_likelihood.png",
            caption="../report/hmm_rnn_log_likelihood.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "log-likelihood"},
        ),
    log:
        "results/{run}/logs/plot_likelihood.log",
    benchmark:
        "results/{run}/benchmarks/plot_likelihood.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot_likelihood --evaluation {input.evaluation:q}"
        " --log-likelihood {output.log_likelihood:q}"
        " --log-likelihood-image {output.log_likelihood_image:q} > {log:q} 2>&1"


rule hmm_rnn_plot_memory:
    """Draw how long the past is felt: pairs, dwell times, entropies, hidden transitions."""
    input:
        modules(
            "hmm_rnn.plot_memory",
            "hmm_rnn.figure_inputs",
            "layouts",
            "hmm_rnn.comparison_panels",
            "hmm_rnn.matrix_panels",
            "plotting",
        ),
        evaluation="results/{run}/evaluation.h5",
    output:
        lagged_pairs="results/{run}/lagged_pairs.pdf",
        lagged_pairs_image=report(
            "results/{run}/lagged_pairs.png",
            caption="../report/hmm_rnn_lagged_pairs.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "pairs at a lag"},
        ),
        dwell_times="results/{run}/dwell_times.pdf",
        dwell_times_image=report(
            "results/{run}/dwell_times.png",
            caption="../report/hmm_rnn_dwell_times.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "dwell times"},
        ),
        entropy_rate="results/{run}/entropy_rate.pdf",
        entropy_rate_image=report(
            "results/{run}/entropy_rate.png",
            caption="../report/hmm_rnn_entropy_rate.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "entropy rate"},
        ),
        hidden_transitions="results/{run}/hidden_transitions.pdf",
        hidden_transitions_image=report(
            "results/{run}/hidden_transitions.png",
            caption="../report/hmm_rnn_hidden_transitions.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "hidden transitions"},
        ),
    log:
        "results/{run}/logs/plot_memory.log",
    benchmark:
        "results/{run}/benchmarks/plot_memory.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot_memory --evaluation {input.evaluation:q}"
        " --lagged-pairs {output.lagged_pairs:q}"
        " --lagged-pairs-image {output.lagged_pairs_image:q}"
        " --dwell-times {output.dwell_times:q}"
        " --dwell-times-image {output.dwell_times_image:q}"
        " --entropy-rate {output.entropy_rate:q}"
        " --entropy-rate-image {output.entropy_rate_image:q}"
        " --hidden-transitions {output.hidden_transitions:q}"
        " --hidden-transitions-image {output.hidden_transitions_image:q} > {log:q} 2>&1"


rule hmm_rnn_plot_trajectory:
    """Draw the trajectory in its principal components, on paper and in a page to turn."""
    input:
        modules(
            "hmm_rnn.plot_trajectory",
            "layouts",
            "hmm_rnn.trajectory_panels",
            "hmm_rnn.trajectory_page",
            "plotting",
        ),
        dynamics="results/{run}/dynamics.h5",
    output:
        latent_trajectory_2d="results/{run}/latent_trajectory_2d.pdf",
        latent_trajectory_2d_image=report(
            "results/{run}/latent_trajectory_2d.png",
            caption="../report/hmm_rnn_latent_trajectory_2d.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "trajectory"},
        ),
        explained_variance="results/{run}/explained_variance.pdf",
        explained_variance_image=report(
            "results/{run}/explained_variance.png",
            caption="../report/hmm_rnn_explained_variance.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "explained variance"},
        ),
        latent_trajectory_3d=report(
            "results/{run}/latent_trajectory_3d.html",
            caption="../report/hmm_rnn_latent_trajectory_3d.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "trajectory in 3-D"},
        ),
    log:
        "results/{run}/logs/plot_trajectory.log",
    benchmark:
        "results/{run}/benchmarks/plot_trajectory.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot_trajectory --dynamics {input.dynamics:q}"
        " --latent-trajectory-2d {output.latent_trajectory_2d:q}"
        " --latent-trajectory-2d-image {output.latent_trajectory_2d_image:q}"
        " --explained-variance {output.explained_variance:q}"
        " --explained-variance-image {output.explained_variance_image:q}"
        " --latent-trajectory-3d {output.latent_trajectory_3d:q} > {log:q} 2>&1"


rule hmm_rnn_plot_dynamics:
    """Draw decay without noise, exponents, Jacobians and the readout."""
    input:
        modules(
            "hmm_rnn.plot_dynamics",
            "layouts",
            "hmm_rnn.trajectory_panels",
            "plotting",
        ),
        dynamics="results/{run}/dynamics.h5",
    output:
        noise_free="results/{run}/noise_free.pdf",
        noise_free_image=report(
            "results/{run}/noise_free.png",
            caption="../report/hmm_rnn_noise_free.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "without noise"},
        ),
        lyapunov_spectrum="results/{run}/lyapunov_spectrum.pdf",
        lyapunov_spectrum_image=report(
            "results/{run}/lyapunov_spectrum.png",
            caption="../report/hmm_rnn_lyapunov_spectrum.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "Lyapunov exponents"},
        ),
        jacobian_spectrum="results/{run}/jacobian_spectrum.pdf",
        jacobian_spectrum_image=report(
            "results/{run}/jacobian_spectrum.png",
            caption="../report/hmm_rnn_jacobian_spectrum.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "Jacobian spectrum"},
        ),
        readout_plane="results/{run}/readout_plane.pdf",
        readout_plane_image=report(
            "results/{run}/readout_plane.png",
            caption="../report/hmm_rnn_readout_plane.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "readout plane"},
        ),
    log:
        "results/{run}/logs/plot_dynamics.log",
    benchmark:
        "results/{run}/benchmarks/plot_dynamics.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot_dynamics --dynamics {input.dynamics:q}"
        " --noise-free {output.noise_free:q}"
        " --noise-free-image {output.noise_free_image:q}"
        " --lyapunov-spectrum {output.lyapunov_spectrum:q}"
        " --lyapunov-spectrum-image {output.lyapunov_spectrum_image:q}"
        " --jacobian-spectrum {output.jacobian_spectrum:q}"
        " --jacobian-spectrum-image {output.jacobian_spectrum_image:q}"
        " --readout-plane {output.readout_plane:q}"
        " --readout-plane-image {output.readout_plane_image:q} > {log:q} 2>&1"


rule hmm_rnn_plot_mechanism:
    """Draw how the network changes its symbol."""
    input:
        modules(
            "hmm_rnn.plot_mechanism",
            "layouts",
            "hmm_rnn.trajectory_panels",
            "hmm_rnn.kick_panels",
            "hmm_rnn.mechanism_settings",
            "plotting",
        ),
        mechanism="results/{run}/mechanism.h5",
    output:
        residency="results/{run}/residency.pdf",
        residency_image=report(
            "results/{run}/residency.png",
            caption="../report/hmm_rnn_residency.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "residency"},
        ),
        noise_sensitivity="results/{run}/noise_sensitivity.pdf",
        noise_sensitivity_image=report(
            "results/{run}/noise_sensitivity.png",
            caption="../report/hmm_rnn_noise_sensitivity.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "sensitivity to noise"},
        ),
        kick_neurons="results/{run}/kick_neurons.pdf",
        kick_neurons_image=report(
            "results/{run}/kick_neurons.png",
            caption="../report/hmm_rnn_kick_neurons.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "kick neurons"},
        ),
        stochastic_resonance="results/{run}/stochastic_resonance.pdf",
        stochastic_resonance_image=report(
            "results/{run}/stochastic_resonance.png",
            caption="../report/hmm_rnn_stochastic_resonance.rst",
            category="hmm_rnn",
            labels={"run": "{run}", "figure": "stochastic resonance"},
        ),
    log:
        "results/{run}/logs/plot_mechanism.log",
    benchmark:
        "results/{run}/benchmarks/plot_mechanism.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.plot_mechanism --mechanism {input.mechanism:q}"
        " --residency {output.residency:q} --residency-image {output.residency_image:q}"
        " --noise-sensitivity {output.noise_sensitivity:q}"
        " --noise-sensitivity-image {output.noise_sensitivity_image:q}"
        " --kick-neurons {output.kick_neurons:q}"
        " --kick-neurons-image {output.kick_neurons_image:q}"
        " --stochastic-resonance {output.stochastic_resonance:q}"
        " --stochastic-resonance-image {output.stochastic_resonance_image:q}"
        " > {log:q} 2>&1"
