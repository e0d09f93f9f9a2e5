"""Queries that teach: each answers a question people have, on whatever runs are stored."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A question, and the query that answers it."""

    name: str
    question: str
    sql: str


EXAMPLES = (
    Example(
        "Runs at a glance",
        "Which runs made the most of a step?",
        """\
SELECT run, arm, status, mode, steps,
       round(tokens_per_step, 2) AS tokens_per_step,
       round(tokens_per_second, 1) AS tokens_per_second,
       round(acceptance_rate, 3) AS acceptance_rate
FROM run
ORDER BY tokens_per_step DESC""",
    ),
    Example(
        "Acceptance by depth",
        "How deep does each method's draft stay right?",
        """\
-- conditional: of the nodes tested at a depth, the share accepted
SELECT run.arm, node.depth,
       count(*) AS tested,
       round(avg((fate = 'accepted')::INT), 3) AS share
FROM node JOIN run USING (run)
WHERE fate IN ('accepted', 'rejected')
GROUP BY ALL
ORDER BY ALL""",
    ),
    Example(
        "Slowest steps",
        "What was different about the steps that took longest?",
        """\
SELECT run.arm, step.step, position,
       num_drafted, num_accepted,
       round(wall_ns / 1e6, 2) AS wall_ms,
       round(draft_ns / 1e6, 2) AS draft_ms,
       round(score_ns / 1e6, 2) AS score_ms,
       round(unaccounted_ns / 1e6, 2) AS unaccounted_ms
FROM step JOIN run USING (run)
ORDER BY wall_ns DESC
LIMIT 30""",
    ),
    Example(
        "Wasted drafts",
        "Which tokens are drafted often and refused?",
        """\
SELECT piece.text AS token,
       count(*) AS drafted,
       count(*) FILTER (fate = 'rejected') AS rejected,
       count(*) FILTER (fate = 'accepted') AS accepted,
       round(avg(exp(draft_logprob)), 3) AS mean_p_draft
FROM node JOIN piece USING (run, token)
WHERE depth > 0
GROUP BY ALL
HAVING rejected > 0
ORDER BY rejected DESC
LIMIT 40""",
    ),
    Example(
        "Stages by context",
        "What does a longer context make slower?",
        """\
SELECT run.arm, position // 64 * 64 AS context,
       count(*) AS steps,
       round(avg(wall_ns) / 1e6, 2) AS step_ms,
       round(sum(draft_ns) / sum(wall_ns), 3) AS draft,
       round(sum(score_ns) / sum(wall_ns), 3) AS score,
       round(sum(commit_ns) / sum(wall_ns), 3) AS commit,
       round(sum(unaccounted_ns) / sum(wall_ns), 3) AS unaccounted
FROM step JOIN run USING (run)
WHERE wall_ns > 0
GROUP BY ALL
ORDER BY ALL""",
    ),
    Example(
        "Is the draft honest?",
        "When the draft says 80 %, is it right 80 % of the time?",
        """\
SELECT run.arm,
       floor(exp(draft_logprob) * 10) / 10 AS draft_says,
       count(*) AS tested,
       round(avg((fate = 'accepted')::INT), 3) AS accepted
FROM node JOIN run USING (run)
WHERE fate IN ('accepted', 'rejected') AND draft_logprob IS NOT NULL
GROUP BY ALL
ORDER BY ALL""",
    ),
    Example(
        "Saved by a second choice",
        "Which accepted tokens were not the draft's first choice?",
        """\
SELECT run.arm, token.position, token.step,
       draft_rank + 1 AS choice,
       piece.text AS token,
       round(exp(token.draft_logprob), 3) AS p_draft,
       round(exp(token.target_logprob), 3) AS p_target
FROM token JOIN run USING (run) JOIN piece USING (run, token)
WHERE draft_rank > 0
ORDER BY draft_rank DESC, p_draft
LIMIT 100""",
    ),
    Example(
        "Close calls",
        "Where did the target itself hesitate, and was the draft refused there?",
        """\
SELECT run.arm, token.origin,
       count(*) AS tokens,
       round(median(top2_gap), 2) AS median_gap,
       round(avg((top2_gap < 0.5)::INT), 3) AS close_calls
FROM token JOIN run USING (run)
GROUP BY ALL
ORDER BY ALL""",
    ),
    Example(
        "Waiting under load",
        "How long did requests of each client wait, and for what?",
        """\
-- of load runs (`draftree load`); times are on the scheduler's clock
SELECT arrival.run, client,
       count(*) AS requests,
       count(*) FILTER (reason IN ('eos', 'length', 'stop-string')) AS completed,
       round(median(admitted_ns - arrival_ns) / 1e6, 1) AS queue_ms,
       round(median(first_token_ns - arrival_ns) / 1e6, 1) AS ttft_ms,
       round(quantile_cont(first_token_ns - arrival_ns, 0.99) / 1e6, 1) AS ttft_p99_ms
FROM arrival
GROUP BY ALL
ORDER BY ALL""",
    ),
    Example(
        "Trees under load",
        "Do trees shrink as the batch grows, and what do they still bring?",
        """\
SELECT run.arm, active AS in_the_batch,
       count(*) AS steps,
       round(avg(share.nodes), 2) AS nodes_each,
       round(avg(share.kept), 2) AS kept_each,
       round(avg(bid), 2) AS expected_each
FROM tick JOIN share USING (run, replica, tick) JOIN run USING (run)
GROUP BY ALL
ORDER BY ALL""",
    ),
)
