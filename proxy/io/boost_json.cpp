// Boost.JSON is compiled here, once: Debian's Boost headers come without its library.
#include <boost/json/src.hpp>
