"""Try configurations on a small sample of the corpus before paying for all of it.

`corpus` samples it, `trial` sends the sample through one configuration, `judging` compares two of them,
`projection` says what the whole corpus would take, and `page` shows them side by side. Answers are stored
as in any run; tables are not.
"""
