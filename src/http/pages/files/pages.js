// The scripts of the pages. Each page works without them.
import './refresh.js';
import './selection.js';
