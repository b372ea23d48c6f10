"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

SUMMARY = """
**Does the gain go with M?** Over seeds, for these very candidates: on MNIST it
{foresees_mnist:does|does not|may} (rank correlation
{foresees_mnist.estimate:.2f}, over seeds {foresees_mnist.ci:.2f}, over candidates too
[{m_mnist_low:.2f}, {m_mnist_high:.2f}]), on scikit-learn's digits it {foresees_digits:does|does not|may}
({foresees_digits.estimate:.2f}, {foresees_digits.ci:.2f}, [{m_digits_low:.2f}, {m_digits_high:.2f}]), on the language
model it {foresees_text:does|does not|may} ({foresees_text.estimate:.2f}, {foresees_text.ci:.2f},
[{m_text_low:.2f}, {m_text_high:.2f}]). Whether it would for other candidates, the intervals over candidates tell: where
they hold zero, that is open.

**Against the best rival.** A training run of M's cost reaches {run_mnist:.2f}, {run_digits:.2f} and {run_text:.2f}. M
{beats_run_mnist:beats it|does not beat it|is not shown to beat it} on MNIST (by {beats_run_mnist.estimate:+.2f},
{beats_run_mnist.ci:+.2f}; over candidates too [{lead_mnist_low:+.2f}, {lead_mnist_high:+.2f}]),
{beats_run_digits:beats it|does not beat it|is not shown to beat it} on scikit-learn's digits
({beats_run_digits.estimate:+.2f}, {beats_run_digits.ci:+.2f}; [{lead_digits_low:+.2f}, {lead_digits_high:+.2f}]) and
{beats_run_text:beats it|does not beat it|is not shown to beat it} on the language model
({beats_run_text.estimate:+.2f}, {beats_run_text.ci:+.2f}; [{lead_text_low:+.2f}, {lead_text_high:+.2f}]); averaged over
the three, by {lead_mean:+.2f} (over candidates too [{lead_mean_low:+.2f}, {lead_mean_high:+.2f}]). Intervals stand for
themselves, verdicts for all claims together: by Holm's correction a claim can be inconclusive though its own interval
lies on one side.

**Against the others.** Averaged over the tasks, for these candidates, M foresees better than these: {beaten}. Of these
that is not shown: {unbeaten}. With candidates drawn anew too, the interval of M's mean lead lies above zero for
{clear:.0f} of the {others:.0f}.

**At equal size.** Within sets of exactly equal parameter count the gain {equal_size:goes|does not go|may go} with M
({equal_size.estimate:.2f}, {equal_size.ci:.2f}), and M {equal_size_run:beats|does not beat|is not shown to beat}
the training run there ({equal_size_run.estimate:+.2f}, {equal_size_run.ci:+.2f}).

**Which part does it?** M {needs_volume:foresees better|does not foresee notably better|is not shown to foresee better}
than its level alone ({needs_volume.estimate:+.2f}, {needs_volume.ci:+.2f}), which is itself a few short training runs
(alone {level_mnist:.2f}, {level_digits:.2f} and {level_text:.2f}), and
{needs_level:better|not notably better|not shown to foresee better} than its volume alone ({needs_level.estimate:+.2f},
{needs_level.ci:+.2f}). The highest barrier between two minima found is {barrier:.2g} nats; some minima
lie further than the tolerance from each other in {barred_mnist:.1%} of the networks on MNIST, {barred_digits:.1%} on
scikit-learn's digits and {barred_text:.1%} on text. The losses on the lines between minima, barriers included,
{needs_lines:make M foresee better|do not make M foresee notably better|are not shown to make M foresee better} than the
losses of the minima alone ({needs_lines.estimate:+.3f}, {needs_lines.ci:+.3f}).

**To choose by M** misses, averaged over the tasks, {choice:no notable share|a notable share|an uncertain share} of the
best candidate's gain ({choice.estimate:.2f}, {choice.ci:.2f}): on MNIST {missed_m_mnist:.2f}, on scikit-learn's digits
{missed_m_digits:.2f}, on the language model {missed_m_text:.2f}. To choose by the training run misses
{missed_run_mnist:.2f}, {missed_run_digits:.2f} and {missed_run_text:.2f}.

**Copies.** M {parts_copies:parts|does not part|is not shown to part} fresh units that nobody reads yet from exact
copies of equal number (by {parts_copies.estimate:.2f}, {parts_copies.ci:.2f}).

**K and T.** Over the range shown, on both sets of digits, M {stable:foresees as well as|foresees worse at some place
than|may foresee as well as} at the values chosen (loss at the worst place: {stable.estimate:.2f},
{stable.ci:.2f}; the worst of several noisy places is worse by chance alone). On the language model K and
T were not varied.
"""
