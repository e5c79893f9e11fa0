// Corrects what the elements of Swagger UI say to assistive technology, whenever it adds some. React sets an attribute only
// when its value changes, so that corrections last.

const label = (text) => (element) => element.setAttribute("aria-label", text);

const corrections = {
  // The page's own heading is the only one above the tags.
  "h3:not([aria-level])": (heading) => heading.setAttribute("aria-level", 2),
  "h4:not([aria-level])": (heading) => heading.setAttribute("aria-level", 3),
  "h5:not([aria-level])": (heading) => heading.setAttribute("aria-level", 4),
  // A name other than the visible text.
  ".auth-btn-wrapper [aria-label]": (button) => button.removeAttribute("aria-label"),
  ".close-modal:not([aria-label])": label("Close"),
  ".copy-to-clipboard button:not([aria-label])": label("Copy"),
  ".examples-select-element:not([aria-label])": label("Example"),
  ".body-param textarea:not([aria-label])": label("Request body"),
  "[data-param-name] :is(input, select, textarea):not([aria-label])": (field) =>
    label(field.closest("[data-param-name]").dataset.paramName)(field),
  // A schema without a name.
  "button[class*=accordion]:not([aria-label])": (button) => button.textContent.trim() || label("Schema")(button),
  // The role of a region without a name hides that this is a table.
  "table[role=region]": (table) => table.removeAttribute("role"),
  // Long lines scroll by the keyboard, too.
  "pre:not([tabindex])": (code) => (code.tabIndex = 0),
};

const root = document.getElementById("swagger-ui");
const correct = () => {
  for (const [selector, correction] of Object.entries(corrections)) root.querySelectorAll(selector).forEach(correction);
};
new MutationObserver(correct).observe(root, { childList: true, subtree: true });
correct();
