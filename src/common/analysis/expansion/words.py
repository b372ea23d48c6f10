"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

SUMMARY = """
**Does the gain correlate with M?** Over seeds, for these candidates, on MNIST it {foresees_mnist:does|does not|may}
(rank correlation {foresees_mnist.estimate:.2f}, over seeds {foresees_mnist.ci:.2f}, over candidates too
[{m_mnist_low:.2f}, {m_mnist_high:.2f}]), on scikit-learn's digits it {foresees_digits:does|does not|may}
({foresees_digits.estimate:.2f}, {foresees_digits.ci:.2f}, [{m_digits_low:.2f}, {m_digits_high:.2f}]), on the language
model it {foresees_text:does|does not|may} ({foresees_text.estimate:.2f}, {foresees_text.ci:.2f},
[{m_text_low:.2f}, {m_text_high:.2f}]). The tests ask whether the correlation is above zero, not whether it is strong.
Whether other candidates would show it is open where the interval over candidates includes zero: {open}.

**Against the best rival.** A training run of M's cost reaches {run_mnist:.2f}, {run_digits:.2f} and {run_text:.2f}. M's
correlation minus the run's is {beats_run_mnist.estimate:+.2f} on MNIST ({beats_run_mnist.ci:+.2f} over seeds,
[{lead_mnist_low:+.2f}, {lead_mnist_high:+.2f}] over candidates too): M
{beats_run_mnist:predicts better|does not predict better|is not shown to predict better}{ahead_mnist}. It is
{beats_run_digits.estimate:+.2f} on scikit-learn's digits ({beats_run_digits.ci:+.2f},
[{lead_digits_low:+.2f}, {lead_digits_high:+.2f}]): M
{beats_run_digits:predicts better|does not predict better|is not shown to predict better}{ahead_digits}. It is
{beats_run_text.estimate:+.2f} on the language model ({beats_run_text.ci:+.2f},
[{lead_text_low:+.2f}, {lead_text_high:+.2f}]): M
{beats_run_text:predicts better|does not predict better|is not shown to predict better}{ahead_text}. Averaged over the
three it is {lead_mean:+.2f} (over candidates too [{lead_mean_low:+.2f}, {lead_mean_high:+.2f}]). Intervals are for each
number alone, verdicts for all claims together: after Holm's correction a claim can be inconclusive though its own
interval lies on one side.

**Against the others.** Averaged over the tasks, for these candidates, M predicts the gain better than: {beaten}. That
is not shown for: {unbeaten}. With candidates resampled too, the interval of M's mean lead lies above zero for
{clear:.0f} of the {others:.0f}.

**At equal size.** Within sets of exactly equal parameter count the gain
{equal_size:correlates|does not correlate|may correlate} with M ({equal_size.estimate:.2f}, {equal_size.ci:.2f}). M's
correlation minus the training run's is {equal_size_run.estimate:+.2f} there ({equal_size_run.ci:+.2f}): M
{equal_size_run:predicts better|does not predict better|is not shown to predict better}{ahead_equal}.

**Which part does it?** M's correlation minus that of its level alone, which is itself a few short training runs (alone
{level_mnist:.2f}, {level_digits:.2f} and {level_text:.2f}), is {needs_volume.estimate:+.2f} ({needs_volume.ci:+.2f}): M
{needs_volume:predicts better|does not predict notably better|is not shown to predict better}. Minus that of its volume
alone it is {needs_level.estimate:+.2f} ({needs_level.ci:+.2f}): M
{needs_level:predicts better|does not predict notably better|is not shown to predict better}. The first term alone,
M_C, the volume in weights, reaches {m_c_mnist:.2f}, {m_c_digits:.2f} and {m_c_text:.2f} (mean {m_c_mean:.2f}), M
{foresees_mnist.estimate:.2f}, {foresees_digits.estimate:.2f} and {foresees_text.estimate:.2f} (mean {m_mean:.2f}). The
mean lead of M over it is {lead_m_c:+.2f} (over candidates too [{lead_m_c_low:+.2f}, {lead_m_c_high:+.2f}]): {than_m_c}.

**Barriers.** The highest between two minima is {barrier:.2g} nats; not all minima found are linearly connected, with
barriers of at most {tolerance:.2g} nats, in {barred_mnist:.1%} of the networks on MNIST, {barred_digits:.1%} on
scikit-learn's digits and {barred_text:.1%} on text. The losses on the lines between minima, barriers included,
{needs_lines:make M predict better|do not make M predict notably better|are not shown to make M predict better} than the
losses at the minima alone ({needs_lines.estimate:+.3f}, {needs_lines.ci:+.3f}).

**To choose by M** misses {choice.estimate:.2f} ({choice.ci:.2f}) of the best candidate's gain, averaged over the tasks,
{choice:too little to matter|enough to matter|which may or may not matter}: on MNIST {missed_m_mnist:.2f}, on
scikit-learn's digits {missed_m_digits:.2f}, on the language model {missed_m_text:.2f}. To choose by the training run
misses {missed_run_mnist:.2f}, {missed_run_digits:.2f} and {missed_run_text:.2f}.

**Copies.** M {parts_copies:tells|does not tell|is not shown to tell} fresh units that nothing reads yet from exact
copies in networks of equal size (higher by {parts_copies.estimate:.2f}, {parts_copies.ci:.2f}).

**K and T.** Over the range shown, on both sets of digits, M {stable:predicts as well as|predicts worse at some K and T
than|is not shown to predict as well as} at the values chosen: at the worst K and T its correlation is lower by
{stable.estimate:.2f} ({stable.ci:.2f}), though the worst of several noisy values is lower by chance alone. On the
language model K and T were not varied.
"""
