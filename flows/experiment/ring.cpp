// A ring of switches and links with two clients at each switch, in SystemC: the twin of flows/systemc.py, cycle for cycle.
//
// Arguments: a file, and the number of cycles. The file says: nodes, depth of the input queues, cycles of a link; then for
// each client the number of its flits, and the cycle and the destination of each. Every process is clocked, and all that
// crosses from one module to another is a signal.

#include <systemc>

#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <fstream>
#include <iostream>
#include <memory>
#include <vector>

using sc_core::sc_in;
using sc_core::sc_out;

constexpr int ports = 4;  // client 0, client 1, to the next node, to the node before

struct Flit {
    bool valid = false;
    int destination = 0;
    int packet = 0;

    bool operator==(const Flit& other) const {
        return valid == other.valid && destination == other.destination && packet == other.packet;
    }
};

std::ostream& operator<<(std::ostream& out, const Flit& flit) { return out << flit.destination; }

namespace sc_core {
inline void sc_trace(sc_trace_file*, const Flit&, const std::string&) {}
}  // namespace sc_core

struct Link : sc_core::sc_module {
    sc_in<bool> clock;
    sc_in<Flit> i;
    sc_out<Flit> o;
    sc_in<bool> credit_i;
    sc_out<bool> credit_o;

    SC_HAS_PROCESS(Link);
    Link(sc_core::sc_module_name name, int cycles) : sc_module(name), flits(cycles - 2), credits(cycles - 2) {
        SC_METHOD(step);
        sensitive << clock.pos();
        dont_initialize();
    }

    void step() {
        o.write(flits[place]);
        credit_o.write(credits[place]);
        flits[place] = i.read();
        credits[place] = credit_i.read();
        place = place + 1 < flits.size() ? place + 1 : 0;
    }

    std::vector<Flit> flits;
    std::vector<char> credits;
    std::size_t place = 0;
};

struct Switch : sc_core::sc_module {
    sc_in<bool> clock;
    sc_in<Flit> i[ports];
    sc_out<bool> credit_o[ports];
    sc_out<Flit> o[ports];
    sc_in<bool> credit_i[ports];

    SC_HAS_PROCESS(Switch);
    Switch(sc_core::sc_module_name name, std::vector<int> route, int depth) : sc_module(name), route(std::move(route)) {
        for (int& free : space) free = depth;
        SC_METHOD(step);
        sensitive << clock.pos();
        dont_initialize();
    }

    void step() {
        int request[ports];
        for (int port = 0; port < ports; ++port) {
            const Flit& flit = i[port].read();
            if (flit.valid) queue[port].push_back(flit);
            space[port] += credit_i[port].read();
        }
        for (int port = 0; port < ports; ++port) {
            request[port] = -1;
            if (queue[port].empty()) continue;
            const int output = route[queue[port].front().destination];
            if (space[output] > 0) request[port] = output;
        }
        bool sent[ports] = {};
        for (int output = 0; output < ports; ++output) {
            Flit flit;
            for (int step = 0; step < ports; ++step) {
                const int port = (turn[output] + step) % ports;
                if (request[port] != output) continue;
                flit = queue[port].front();
                queue[port].pop_front();
                --space[output];
                sent[port] = true;
                turn[output] = (port + 1) % ports;
                ++hops;
                break;
            }
            o[output].write(flit);
        }
        for (int port = 0; port < ports; ++port) credit_o[port].write(sent[port]);
    }

    std::vector<int> route;
    std::deque<Flit> queue[ports];
    int space[ports];
    int turn[ports] = {};
    std::int64_t hops = 0;
};

struct Client : sc_core::sc_module {
    sc_in<bool> clock;
    sc_in<Flit> i;
    sc_out<bool> credit_o;
    sc_out<Flit> o;
    sc_in<bool> credit_i;

    struct Offer {
        std::int64_t cycle;
        int destination;
    };

    SC_HAS_PROCESS(Client);
    Client(sc_core::sc_module_name name, std::vector<Offer> offers, int number, int depth)
        : sc_module(name), offers(std::move(offers)), number(number), space(depth) {
        SC_METHOD(step);
        sensitive << clock.pos();
        dont_initialize();
    }

    void step() {
        space += credit_i.read();
        Flit flit;
        if (next < offers.size() && offers[next].cycle <= cycle && space > 0) {
            flit = {true, offers[next].destination, static_cast<int>(next)};
            ++next;
            --space;
        }
        o.write(flit);
        const Flit& taken = i.read();
        credit_o.write(taken.valid);
        if (taken.valid) {
            ++delivered;
            cycles += cycle;
            check += static_cast<std::uint64_t>(cycle + 1) * (number + 1) * (taken.packet + 1);
        }
        ++cycle;
    }

    std::vector<Offer> offers;
    int number;
    int space;
    std::size_t next = 0;
    std::int64_t cycle = 0, delivered = 0, cycles = 0;
    std::uint64_t check = 0;
};

template <typename T>
using Signals = std::vector<std::unique_ptr<sc_core::sc_signal<T>>>;

template <typename T>
sc_core::sc_signal<T>& made(Signals<T>& signals) {
    signals.push_back(std::make_unique<sc_core::sc_signal<T>>());
    return *signals.back();
}

int sc_main(int argc, char* argv[]) {
    if (argc != 3) return 2;
    std::ifstream file(argv[1]);
    const std::int64_t cycles = std::atoll(argv[2]);
    int nodes, depth, link_cycles;
    file >> nodes >> depth >> link_cycles;

    sc_core::sc_clock clock("clock", 1, sc_core::SC_NS);
    Signals<Flit> flits;
    Signals<bool> credits;
    std::vector<std::unique_ptr<Switch>> switches;
    std::vector<std::unique_ptr<Client>> clients;
    std::vector<std::unique_ptr<Link>> links;

    for (int node = 0; node < nodes; ++node) {
        std::vector<int> route;
        for (int client = 0; client < 2 * nodes; ++client) {
            const int ahead = (client / 2 - node + nodes) % nodes;
            route.push_back(ahead == 0 ? client % 2 : 2 * ahead <= nodes ? 2 : 3);
        }
        switches.push_back(std::make_unique<Switch>(sc_core::sc_gen_unique_name("node"), route, depth));
        switches.back()->clock(clock);
    }
    for (int number = 0; number < 2 * nodes; ++number) {
        std::size_t count;
        file >> count;
        std::vector<Client::Offer> offers(count);
        for (auto& offer : offers) file >> offer.cycle >> offer.destination;
        clients.push_back(std::make_unique<Client>(sc_core::sc_gen_unique_name("client"), offers, number, depth));
        Client& client = *clients.back();
        Switch& node = *switches[number / 2];
        client.clock(clock);
        const auto join = [&](auto& output, auto& input, auto& credit_input, auto& credit_output) {
            auto& flit = made(flits);
            auto& credit = made(credits);
            output(flit);
            input(flit);
            credit_input(credit);
            credit_output(credit);
        };
        join(client.o, node.i[number % 2], client.credit_i, node.credit_o[number % 2]);
        join(node.o[number % 2], client.i, node.credit_i[number % 2], client.credit_o);
    }
    if (!file) return 2;
    for (int node = 0; node < nodes; ++node) {
        for (int direction = 2; direction < ports; ++direction) {
            Switch& from = *switches[node];
            Switch& to = *switches[(node + (direction == 2 ? 1 : nodes - 1)) % nodes];
            links.push_back(std::make_unique<Link>(sc_core::sc_gen_unique_name("link"), link_cycles));
            Link& link = *links.back();
            auto &sent = made(flits), &arrived = made(flits);
            auto &given = made(credits), &returned = made(credits);
            link.clock(clock);
            from.o[direction](sent);
            link.i(sent);
            link.o(arrived);
            to.i[5 - direction](arrived);
            to.credit_o[5 - direction](given);
            link.credit_i(given);
            link.credit_o(returned);
            from.credit_i[direction](returned);
        }
    }

    sc_core::sc_start(sc_core::SC_ZERO_TIME);
    const std::clock_t begin = std::clock();
    sc_core::sc_start(static_cast<double>(cycles) - 0.5, sc_core::SC_NS);
    const double cpu_s = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;

    std::int64_t delivered = 0, hops = 0, arrival_cycles = 0;
    std::uint64_t check = 0;
    for (const auto& client : clients) {
        delivered += client->delivered;
        arrival_cycles += client->cycles;
        check += client->check;
    }
    for (const auto& node : switches) hops += node->hops;
    std::cout << "{\"delivered\": " << delivered << ", \"hops\": " << hops << ", \"arrival_cycles\": " << arrival_cycles
              << ", \"check\": " << check << ", \"cpu_s\": " << cpu_s << ", \"version\": \"" << sc_core::sc_version_string
              << "\"}" << std::endl;
    return 0;
}
