// The scripts of the pages. Each page works without them.
import './back.js';
import './refresh.js';
import './selection.js';
