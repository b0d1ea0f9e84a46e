// Runs a case of flows in SimGrid 3.32 as a plain max-min fluid network, and writes when each flow ended.
//
//   simgrid_driver CASE RESULT LIMIT_S
//
// CASE, native binary:  int64   num_links, num_flows, num_entries
//                       float64 capacity_bytes_per_s[num_links]
//                       int64   path_offsets[num_flows + 1], path_links[num_entries]
//                       float64 size_bytes[num_flows], start_s[num_flows]
// RESULT:               float64 simulation_s, finish_s[num_flows]
// SIGALRM ends the process once the simulation has run for LIMIT_S (whole seconds).
//
// simulation_s is SimGrid at its best: hosts, links, routes and communications are made before it begins, and no
// actor runs: the kernel's timers start the communications, and a callback notes their ends.

#include <simgrid/kernel/Timer.hpp>
#include <simgrid/s4u.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include <unistd.h>

namespace sg4 = simgrid::s4u;

struct Case {
  std::vector<double> capacity_bytes_per_s;
  std::vector<int64_t> path_offsets;
  std::vector<int64_t> path_links;
  std::vector<double> size_bytes;
  std::vector<double> start_s;
};

template <class T> std::vector<T> read(std::ifstream& in, size_t count)
{
  std::vector<T> values(count);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(T)));
  if (!in)
    throw std::runtime_error("the case file is too short");
  return values;
}

static Case read_case(const char* path)
{
  std::ifstream in(path, std::ios::binary);
  const auto counts = read<int64_t>(in, 3);
  const auto links = static_cast<size_t>(counts[0]), flows = static_cast<size_t>(counts[1]);
  Case read_in;
  read_in.capacity_bytes_per_s = read<double>(in, links);
  read_in.path_offsets         = read<int64_t>(in, flows + 1);
  read_in.path_links           = read<int64_t>(in, static_cast<size_t>(counts[2]));
  read_in.size_bytes           = read<double>(in, flows);
  read_in.start_s              = read<double>(in, flows);
  return read_in;
}

static void configure()
{
  // CM02 is SimGrid's plain max-min model; what the other models add is turned off here by name all the same.
  for (const char* setting :
       {"network/model:CM02", "network/optim:Full", "network/crosstraffic:0", "network/bandwidth-factor:1",
        "network/latency-factor:1", "network/weight-S:0", "network/TCP-gamma:0",
        "surf/precision:1e-13"}) // called precision/timing from 3.33 on
    sg4::Engine::set_config(setting);
}

// A communication for each flow, between a pair of hosts of its own whose route is the flow's path.
static std::vector<sg4::CommPtr> build(const Case& flows)
{
  auto* zone = sg4::create_full_zone("network");
  std::vector<sg4::LinkInRoute> links;
  for (size_t link = 0; link < flows.capacity_bytes_per_s.size(); ++link)
    links.emplace_back(zone->create_link("link" + std::to_string(link), flows.capacity_bytes_per_s[link])->seal());
  // n hosts make n (n - 1) ordered pairs: enough routes for all flows with few hosts.
  size_t num_hosts = 2;
  while (num_hosts * (num_hosts - 1) < flows.size_bytes.size())
    ++num_hosts;
  std::vector<sg4::Host*> hosts;
  for (size_t host = 0; host < num_hosts; ++host)
    hosts.push_back(zone->create_host("host" + std::to_string(host), 1e9)->seal());

  std::vector<sg4::CommPtr> comms;
  for (size_t flow = 0; flow < flows.size_bytes.size(); ++flow) {
    const size_t from = flow / (num_hosts - 1), pick = flow % (num_hosts - 1);
    const size_t to = pick + (pick >= from ? 1 : 0);
    std::vector<sg4::LinkInRoute> route;
    for (int64_t entry = flows.path_offsets[flow]; entry < flows.path_offsets[flow + 1]; ++entry)
      route.push_back(links[static_cast<size_t>(flows.path_links[static_cast<size_t>(entry)])]);
    zone->add_route(hosts[from]->get_netpoint(), hosts[to]->get_netpoint(), nullptr, nullptr, route, false);
    comms.push_back(sg4::Comm::sendto_init(hosts[from], hosts[to]));
    comms.back()->set_payload_size(static_cast<uint64_t>(flows.size_bytes[flow]) + 1); // `start` makes it exact
  }
  zone->seal();
  return comms;
}

static simgrid::kernel::resource::Model& network_model(const sg4::Engine& engine)
{
  for (auto* model : engine.get_all_models())
    if (model->get_name().rfind("Network", 0) == 0)
      return *model;
  throw std::runtime_error("SimGrid has no network model");
}

// A payload is a whole number of bytes in this interface, but not in the model behind it: correct it there.
static void start(sg4::Comm& comm, double size_bytes, simgrid::kernel::resource::Model& model)
{
  comm.start();
  model.get_started_action_set()->back().set_remains(size_bytes);
}

static double run(sg4::Engine& engine, const Case& flows, const std::vector<sg4::CommPtr>& comms,
                  std::vector<double>& finish_s)
{
  std::unordered_map<const sg4::Activity*, size_t> flow_of;
  std::map<double, std::vector<size_t>> starting;
  for (size_t flow = 0; flow < comms.size(); ++flow) {
    flow_of[comms[flow].get()] = flow;
    starting[flows.start_s[flow]].push_back(flow);
  }
  auto& model = network_model(engine);
  sg4::Activity::on_completion_cb(
      [&](sg4::Activity const& ended) { finish_s[flow_of.at(&ended)] = sg4::Engine::get_clock(); });

  const auto before = std::chrono::steady_clock::now();
  for (const auto& [start_s, group] : starting) {
    const auto start_group = [&, &together = group] {
      for (const size_t flow : together)
        start(*comms[flow], flows.size_bytes[flow], model);
    };
    if (start_s > 0.0)
      simgrid::kernel::timer::Timer::set(start_s, start_group);
    else
      start_group();
  }
  engine.run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
}

int main(int argc, char** argv)
{
  sg4::Engine engine(&argc, argv);
  if (argc != 4) {
    std::cerr << "usage: simgrid_driver CASE RESULT LIMIT_S\n";
    return 2;
  }
  configure();
  const Case flows = read_case(argv[1]);
  const auto comms = build(flows);
  std::vector<double> finish_s(comms.size(), std::numeric_limits<double>::quiet_NaN());
  alarm(static_cast<unsigned>(std::atoi(argv[3])));
  const double simulation_s = run(engine, flows, comms, finish_s);
  alarm(0);
  std::ofstream out(argv[2], std::ios::binary);
  out.write(reinterpret_cast<const char*>(&simulation_s), sizeof simulation_s);
  out.write(reinterpret_cast<const char*>(finish_s.data()),
            static_cast<std::streamsize>(finish_s.size() * sizeof(double)));
  return out ? 0 : 1;
}
