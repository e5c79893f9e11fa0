// Limits the number of segments that can be ticked in the list, and shows it on the button.

const form = () => document.querySelector('form.list');

const update = () => {
  if (!form()) return;
  const boxes = [...form().querySelectorAll('input[type="checkbox"]')];
  const count = boxes.filter((box) => box.checked).length;
  const isFull = count >= Number(form().dataset.max);
  for (const box of boxes) box.disabled = isFull && !box.checked;
  const button = form().querySelector('button');
  button.textContent = count > 1 ? `Compare ${count} segments` : button.dataset.text;
};

document.addEventListener('change', update);
// A browser that goes back restores the ticks after the script has run.
window.addEventListener('pageshow', update);
