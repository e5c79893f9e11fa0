// Relative to this file, so that it works behind a proxy that adds a prefix.
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: new URL("../openapi.json", document.currentScript.src).href,
  deepLinking: true,
  // The badge would send the URL of the document to another host.
  validatorUrl: null,
});
