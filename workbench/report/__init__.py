"""Reports: one self-contained HTML file, or Markdown, from a comparison or from stored runs.

`build` gathers what a report says as plain values, `render` turns them into a file. The file makes
no network call: scripts and figures are inside, and its own policy forbids the browser the rest.
"""
