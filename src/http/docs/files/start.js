// Starts Swagger UI with some components of our own. URLs are relative to this file, so that the page works behind a proxy
// that adds a prefix.

const components = ({ React }) => ({
  wrapComponents: {
    // The page has a heading of its own.
    InfoContainer: (_, { getComponent, specSelectors }) => () =>
      React.createElement(getComponent("Markdown", true), { source: specSelectors.selectInfoDescriptionField() }),
    // There is one server: this one.
    ServersContainer: () => () => null,
    // A link within the button that opens an operation. The URL of the page has it once the operation is open.
    DeepLink: () => ({ text }) => React.createElement("span", null, text),
    // The browser keeps the focus in a dialog, and closes it by Escape.
    authorizationPopup: (Popup, { authActions }) => (props) => {
      const dialog = React.useRef();
      React.useLayoutEffect(() => {
        const { current } = dialog;
        current.showModal();
        return () => current.close();
      }, []);
      const onCancel = () => authActions.showDefinitions(false);
      return React.createElement("dialog", { ref: dialog, onCancel, "aria-label": "Authorize" }, React.createElement(Popup, props));
    },
  },
});

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: new URL("../openapi.json", document.currentScript.src).href,
  deepLinking: true,
  plugins: [components],
  // Its colors are inline styles, for one palette.
  syntaxHighlight: false,
  // The badge would send the URL of the document to another host.
  validatorUrl: null,
});
