// Lets links back to the list keep its search, order and page, which the tab remembers.

if (document.querySelector('form[role="search"]')) sessionStorage.setItem('list', location.search);

/** Completes the link that is followed. The refresh of a page resets its links. */
const complete = (event) => {
  const link = event.target.closest('main a[href="../"]');
  if (link) link.href = `../${sessionStorage.getItem('list') || ''}`;
};

document.addEventListener('click', complete);
