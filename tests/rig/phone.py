"""What a page in a real browser hides from who looks at it on a phone."""

PHONE = {"width": 390, "height": 844}
# JavaScript: buttons and fields that are beyond the edge, or scrolled out of sight within a box.
BEYOND = """
[...document.querySelectorAll("main :is(button, a.btn, input, select, textarea)")]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().width > 1)
  .filter((one) => one.getBoundingClientRect().right > innerWidth)
  .map((one) => one.outerHTML.slice(0, 200))
"""
