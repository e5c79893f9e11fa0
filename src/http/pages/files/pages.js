// The scripts of the pages. Each page works without them.
import './back.js';
import './charts.js';
import './refresh.js';
import './selection.js';
