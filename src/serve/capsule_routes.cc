// /v1/capsules and /v1/sessions: what the store keeps of the caller's namespace, and the verbs on it. docs/openapi.yaml has every field.
//
// A session is a name that moves: it stands at the capsule where its last answer ended.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/utf8.h"
#include "serve/generate_request.h"
#include "serve/openai_answer.h"

namespace reprise::serve {
namespace {

constexpr int kMostForks = 64;
constexpr size_t kMostExcerpt = 600;  // bytes of text that a tree's node carries
constexpr size_t kMostListed = 2000;

class CapsuleRoutes {
 public:
  CapsuleRoutes(Service& service, Engines& engines, Exchange& exchange, const Caller& caller)
      : service_(service), engines_(engines), exchange_(exchange), caller_(caller), store_(*engines.model.store()) {}

  void Serve() {
    const HttpRequest& request = exchange_.request();
    const auto& path = request.segments;
    const std::string& method = request.method;
    if (path[1] == "sessions") {
      if (path.size() == 4 && path[3] == "rollback" && method == "POST") return Rollback(path[2]);
      return NoRoute();
    }
    if (path.size() == 2) return method == "GET" ? List() : method == "POST" ? Take() : WrongMethod();
    if (path.size() == 3 && path[2] == "tree") return method == "GET" ? Tree() : WrongMethod();
    if (path.size() == 3 && path[2] == "import") return method == "POST" ? Import() : WrongMethod();
    if (path.size() == 3) {
      return method == "GET" ? Show(path[2]) : method == "DELETE" ? Remove(path[2]) : method == "PATCH" ? Change(path[2]) : WrongMethod();
    }
    if (path.size() != 4) return NoRoute();
    if (path[3] == "export") return method == "GET" ? Export(path[2]) : WrongMethod();
    if (path[3] == "restore") return method == "POST" ? Restore(path[2]) : WrongMethod();
    if (path[3] == "fork") return method == "POST" ? Fork(path[2]) : WrongMethod();
    NoRoute();
  }

 private:
  void Fail() { RespondError(exchange_, error_); }
  void NoRoute() { RespondError(exchange_, {404, "there is no such route", "", "not_found"}); }
  void WrongMethod() { RespondError(exchange_, {405, "this route does not take that method", "", "method_not_allowed"}); }
  void Give(const OrderedJson& json, int status = 200) { exchange_.Respond(status, kJsonType, Dump(json)); }

  static OrderedJson EntryJson(const StoreEntry& entry) {
    OrderedJson tiers = OrderedJson::array();
    if (entry.in_memory) tiers.push_back("memory");
    if (entry.on_disk) tiers.push_back("disk");
    return {{"id", entry.id},
            {"object", "capsule"},
            {"parent", entry.parent == 0 ? OrderedJson() : OrderedJson(entry.parent)},
            {"name", entry.name.empty() ? OrderedJson() : OrderedJson(entry.name)},
            {"pinned", entry.pinned},
            {"keep", KeepName(entry.keep)},
            {"tokens", entry.position},
            {"bytes", entry.bytes},
            {"tiers", std::move(tiers)},
            {"created", entry.created},
            {"used", entry.used},
            {"hits", entry.hits}};
  }

  void List() {
    OrderedJson data = OrderedJson::array();
    for (const StoreEntry& entry : Entries()) data.push_back(EntryJson(entry));
    Give({{"object", "list"}, {"data", std::move(data)}});
  }

  // The most recently used, and of those the ones above them too; parents first.
  std::vector<StoreEntry> Entries() {
    std::vector<StoreEntry> entries = store_.List(caller_.name_space);
    if (entries.size() <= kMostListed) return entries;
    std::vector<int64_t> used;
    used.reserve(entries.size());
    for (const StoreEntry& entry : entries) used.push_back(entry.used);
    std::nth_element(used.begin(), used.begin() + kMostListed, used.end(), std::greater<>());
    const int64_t least = used[kMostListed];
    std::erase_if(entries, [&](const StoreEntry& entry) { return entry.used <= least; });
    return entries;
  }

  std::string Excerpt(std::span<const int32_t> tokens) const {
    std::string text = engines_.tokenizer().Decode(tokens.first(std::min(tokens.size(), kMostExcerpt)));
    if (text.size() <= kMostExcerpt) return text;
    size_t end = kMostExcerpt;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    return text.substr(0, end) + "…";
  }

  void Tree() {
    OrderedJson nodes = OrderedJson::array();
    std::map<uint64_t, int32_t> positions;
    for (const StoreEntry& entry : Entries()) {
      positions[entry.id] = entry.position;
      OrderedJson node = EntryJson(entry);
      const auto parent = positions.find(entry.parent);
      const int32_t from = parent == positions.end() ? 0 : parent->second;
      if (const auto tokens = TokensAt(engines_, caller_, entry, error_); tokens && from <= static_cast<int32_t>(tokens->size())) {
        node["text"] = Excerpt(std::span(*tokens).subspan(static_cast<size_t>(from)));
      }
      error_ = {};  // an entry that went away meanwhile has no text
      nodes.push_back(std::move(node));
    }
    Give({{"object", "tree"}, {"nodes", std::move(nodes)}, {"sessions", Sessions()}});
  }

  OrderedJson Sessions() {
    OrderedJson sessions = OrderedJson::object();
    for (const StoreEntry& entry : store_.List(caller_.name_space)) {
      if (!entry.name.empty()) sessions[entry.name] = entry.id;
    }
    return sessions;
  }

  void Show(const std::string& given) {
    const auto entry = FindCapsule(engines_, caller_, given, error_);
    if (!entry) return Fail();
    OrderedJson json = EntryJson(*entry);
    if (const auto tokens = TokensAt(engines_, caller_, *entry, error_)) {
      json["text"] = engines_.tokenizer().Decode(*tokens);
      json["messages"] = OrderedJson::array();
      if (engines_.chat) {
        for (const ChatTurn& turn : TurnsOf(engines_.tokenizer(), *engines_.chat, *tokens)) {
          json["messages"].push_back({{"role", turn.role}, {"content", turn.content}, {"position", turn.position}});
        }
      }
    }
    if (!error_.ok()) return Fail();
    Give(json);
  }

  // A name of the body's, "" when none is given.
  std::string NameOf(Fields& fields, const char* field) {
    std::string name = fields.String(field, 128).value_or("");
    if (!name.empty() && !IsGoodName(name)) fields.Fail(field, "must be of letters, digits, '.', '_', '-' and ':', not of digits alone");
    return name;
  }

  void Take() {
    const Json body = ParseObject(exchange_.request().body, error_);
    Fields fields(body, error_);
    const auto request = fields.String("request", 128);
    if (!request) fields.Fail("request", "must name a running or lately finished request by its id");
    const auto choice = fields.Integer("choice", 0, 1000).value_or(0);
    CapsuleStore::PutOptions options;
    options.name = NameOf(fields, "name");
    options.pinned = fields.Bool("pinned").value_or(false);
    if (!error_.ok()) return Fail();
    const auto id = engines_.scheduler.Take(caller_.name_space, *request, static_cast<int>(choice), options);
    GiveKept(id);
  }

  void GiveKept(const Result<uint64_t>& id) {
    if (!id.ok()) {
      error_.Set(id.status());
      return Fail();
    }
    if (*id == 0) {
      error_.Set(429, "the store has no room for it", "", "exhausted");
      return Fail();
    }
    const auto entry = store_.Show(caller_.name_space, *id);
    if (!entry.ok()) {
      error_.Set(entry.status());
      return Fail();
    }
    Give(EntryJson(*entry), 201);
  }

  void Remove(const std::string& given) {
    const auto entry = FindCapsule(engines_, caller_, given, error_);
    if (!entry) return Fail();
    if (const Status status = store_.Remove(caller_.name_space, entry->id); !status.ok()) {
      error_.Set(status);
      return Fail();
    }
    Give({{"id", entry->id}, {"object", "capsule"}, {"deleted", true}});
  }

  void Change(const std::string& given) {
    const Json body = ParseObject(exchange_.request().body, error_);
    Fields fields(body, error_);
    const bool rename = body.contains("name");
    const std::string name = NameOf(fields, "name");
    const auto pinned = fields.Bool("pinned");
    if (!error_.ok()) return Fail();
    auto entry = FindCapsule(engines_, caller_, given, error_);
    if (!entry) return Fail();
    Status status;
    if (pinned) status = store_.Pin(caller_.name_space, entry->id, *pinned);
    if (status.ok() && rename) status = store_.Name(caller_.name_space, entry->id, name);
    if (!status.ok()) {
      error_.Set(status);
      return Fail();
    }
    entry = FindCapsule(engines_, caller_, std::to_string(entry->id), error_);
    if (!entry) return Fail();
    Give(EntryJson(*entry));
  }

  // The same capsule once more, under each of the names.
  void KeepAs(const std::string& given, const std::vector<std::string>& names, bool list) {
    const auto entry = FindCapsule(engines_, caller_, given, error_);
    if (!entry) return Fail();
    const auto capsule = engines_.scheduler.Get(caller_.name_space, entry->id);
    const auto tokens = store_.Tokens(caller_.name_space, entry->id);
    if (!capsule.ok() || !tokens.ok()) {
      error_.Set(capsule.ok() ? tokens.status() : capsule.status());
      return Fail();
    }
    OrderedJson data = OrderedJson::array();
    for (const std::string& name : names) {
      const auto id =
          store_.Put(caller_.name_space, *tokens, *capsule, {.keep = Keep::kRequested, .name = name, .metadata = entry->metadata});
      if (!list || !id.ok() || *id == 0) return GiveKept(id);
      const auto kept = store_.Show(caller_.name_space, *id);
      OrderedJson one = kept.ok() ? EntryJson(*kept) : OrderedJson{{"id", *id}};
      one["session"] = name;
      data.push_back(std::move(one));
    }
    Give({{"object", "list"}, {"data", std::move(data)}}, 201);
  }

  void Restore(const std::string& given) {
    const Json body = ParseObject(exchange_.request().body, error_);
    Fields fields(body, error_);
    const std::string session = NameOf(fields, "session");
    if (session.empty()) fields.Fail("session", "must name the session that is to stand at the capsule");
    if (!error_.ok()) return Fail();
    KeepAs(given, {session}, false);
  }

  void Fork(const std::string& given) {
    const Json body = ParseObject(exchange_.request().body, error_, /*may_be_empty=*/true);
    Fields fields(body, error_);
    const auto count = fields.Integer("n", 1, kMostForks).value_or(1);
    std::vector<std::string> names;
    if (const Json* list = fields.Array("sessions")) {
      for (const Json& one : *list) {
        if (!one.is_string() || !IsGoodName(one.get_ref<const std::string&>())) {
          fields.Fail("sessions", "must be a list of names");
          break;
        }
        names.push_back(one.get<std::string>());
      }
      if (names.empty() || names.size() > kMostForks) fields.Fail("sessions", fmt::format("must be a list of 1 to {} names", kMostForks));
    }
    if (!error_.ok()) return Fail();
    while (names.empty() || static_cast<int64_t>(names.size()) < count) names.push_back(NewId("fork-"));
    KeepAs(given, names, true);
  }

  void Export(const std::string& given) {
    const auto entry = FindCapsule(engines_, caller_, given, error_);
    if (!entry) return Fail();
    const auto capsule = engines_.scheduler.Get(caller_.name_space, entry->id);
    if (!capsule.ok()) {
      error_.Set(capsule.status());
      return Fail();
    }
    const auto bytes =
        capsule->Serialize(Dump(OrderedJson{{"model", engines_.model.info().name}, {"tokens", entry->position}, {"name", entry->name}}));
    if (!bytes.ok()) {
      error_.Set(bytes.status());
      return Fail();
    }
    exchange_.AddHeader("Content-Disposition", fmt::format("attachment; filename=\"capsule-{}.capsule\"", entry->id));
    exchange_.Respond(200, "application/octet-stream", {reinterpret_cast<const char*>(bytes->data()), bytes->size()});
  }

  void Import() {
    const HttpRequest& request = exchange_.request();
    CapsuleStore::PutOptions options{.name = std::string(request.Query("name")), .pinned = request.Query("pinned") == "true"};
    if (!options.name.empty() && !IsGoodName(options.name)) {
      error_.Set(400, "'name' must be of letters, digits, '.', '_', '-' and ':', not of digits alone", "name", "invalid_value");
      return Fail();
    }
    GiveKept(engines_.scheduler.Import(caller_.name_space, std::as_bytes(std::span(request.body)), options));
  }

  void Rollback(const std::string& session) {
    const Json body = ParseObject(exchange_.request().body, error_);
    Fields fields(body, error_);
    const auto back = fields.Integer("tokens", 0, INT32_MAX);
    const auto to = fields.Integer("position", 0, INT32_MAX);
    const auto turns = fields.Integer("turns", 1, INT32_MAX);
    if (back.has_value() + to.has_value() + turns.has_value() != 1) {
      error_.Set(400, "give one of 'tokens', 'position' and 'turns'", "tokens", "invalid_value");
    }
    if (error_.ok() && !IsGoodName(session)) error_.Set(404, "there is no such session", "session", "not_found");
    const auto entry = error_.ok() ? FindCapsule(engines_, caller_, session, error_) : std::nullopt;
    if (!entry) return Fail();
    const auto tokens = TokensAt(engines_, caller_, *entry, error_);
    if (!tokens) return Fail();
    const auto size = static_cast<int64_t>(tokens->size());
    int64_t target = to ? *to : back ? size - *back : 0;
    if (turns) target = BeforeTurns(*tokens, *turns);
    if (target < 1 || target > size) {
      error_.Set(400, fmt::format("the session holds {} tokens, and cannot go back to {}", size, target), "tokens", "out_of_reach");
      return Fail();
    }
    const auto job = std::make_shared<Job>();
    job->id = NewId("rollback-");
    job->name_space = caller_.name_space;
    job->prompt.assign(tokens->begin(), tokens->begin() + target);
    job->session = session;
    job->max_tokens = 0;
    Jobs jobs = {job};
    const std::vector<std::shared_ptr<Job>>& same = jobs;
    if (!SubmitAll(service_, same, error_)) return Fail();
    if (!FollowAll({service_, exchange_, jobs, [](size_t, const Event&) { return true; }, nullptr}, error_)) {
      if (!error_.ok()) Fail();
      return;
    }
    OrderedJson json = {{"session", session}, {"tokens", target}, {"capsule", job->capsules[0]}};
    json["reused"] = job->prefill.reused;
    json["computed"] = job->prefill.computed;
    Give(json);
  }

  // Where the last `turns` questions had not been asked; 0 if there were not so many, or nothing would be left.
  int64_t BeforeTurns(std::span<const int32_t> tokens, int64_t turns) {
    if (!engines_.chat) return 0;
    const auto all = TurnsOf(engines_.tokenizer(), *engines_.chat, tokens);
    for (auto it = all.rbegin(); it != all.rend(); ++it) {
      if (it->role == "user" && --turns == 0) return it->position;
    }
    return 0;
  }

  Service& service_;
  Engines& engines_;
  Exchange& exchange_;
  const Caller& caller_;
  CapsuleStore& store_;
  ApiError error_;
};

}  // namespace

void ServeCapsules(Service& service, Engines& engines, Exchange& exchange, const Caller& caller) {
  if (engines.model.store() == nullptr) return RespondError(exchange, {400, "this server keeps no capsules", "", "no_store"});
  CapsuleRoutes(service, engines, exchange, caller).Serve();
}

}  // namespace reprise::serve
