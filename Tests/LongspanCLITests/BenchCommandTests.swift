import Foundation
import Testing

/// Runs `longspan bench` for moments and checks what a person or a program sees.
@Suite(.serialized) struct BenchCommandTests {
  private static func file(_ suffix: String) -> URL {
    FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString).\(suffix)")
  }

  @Test func writesRowsAndAPlot() throws {
    let json = Self.file("json")
    let plot = Self.file("svg")
    defer {
      try? FileManager.default.removeItem(at: json)
      try? FileManager.default.removeItem(at: plot)
    }
    let result = try Command.run([
      "bench", "--seconds", "0.01", "--filter", "attention_decode", "--shape", "Hq=4,Hk=2,D=64,S=512",
      "--dtype", "bf16", "--threads", "1,2", "--json", json.path, "--plot", plot.path,
    ])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains("attention_decode"))
    #expect(result.output.contains("Hq=4 Hk=2 D=64 S=512"))

    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(contentsOf: json)) as? [String: Any])
    let header = try #require(object["header"] as? [String: Any])
    let machine = try #require(header["machine"] as? [String: Any])
    #expect(machine["load_average"] is Double && machine["omp_wait_policy"] is String)
    let ceilings = try #require(header["ceilings"] as? [String: Any])
    let teams = try #require(ceilings["teams"] as? [[String: Any]])
    #expect(teams.compactMap { $0["threads"] as? Int }.contains(2))
    for key in ["dram_read", "l3_read", "l2_read", "fma_f32", "exp"] {
      let rate = try #require(teams[0][key] as? [String: Double], "\(key)")
      #expect((rate["best"] ?? 0) >= (rate["median"] ?? 1), "\(key)")
    }

    let rows = try #require(object["rows"] as? [[String: Any]])
    // warm and cold, each with one thread and with two
    #expect(rows.count == 4)
    for row in rows {
      #expect(
        Set(row.keys) == [
          "name", "variant", "dtype", "threads", "shape", "ns_min", "ns_median", "bytes", "flops", "ceiling",
          "ceiling_rate", "fraction_of_ceiling", "elements_per_second", "cache", "scratch_bytes",
        ])
      #expect(row["name"] as? String == "attention_decode" && row["dtype"] as? String == "bf16")
      #expect(
        row["shape"] as? [String: Int] == ["Hq": 4, "Hk": 2, "D": 64, "S": 512, "T": 1, "window": 0])
      #expect(row["flops"] as? Int == 4 * 4 * 64 * 512)
      let fraction = try #require(row["fraction_of_ceiling"] as? Double)
      // how large it is says little while other tests share the cores; what it is made of is exact
      let ceiling = try #require(row["ceiling"] as? String)
      let isCompute = ["fma_f32", "fma_bf16"].contains(ceiling)
      // exponentials, one for each query head and key, are not among the row's numbers
      let amount = ceiling == "exp" ? 4 * 512 : try #require(row[isCompute ? "flops" : "bytes"] as? Double)
      let time = try #require(row["ns_min"] as? Double)
      let rate = try #require(row["ceiling_rate"] as? Double)
      #expect(fraction > 0 && abs(amount / time * 1e9 / rate / fraction - 1) < 1e-9)
    }
    let svg = try String(contentsOf: plot, encoding: .utf8)
    #expect(svg.hasPrefix("<svg") && svg.components(separatedBy: "<circle").count == 5)
  }

  @Test func listsWithoutRunning() throws {
    let result = try Command.run(["bench", "--list", "--filter", "layer_norm", "--cache", "cold"])
    #expect(result.status == 0)
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 2 && lines.allSatisfy { $0.hasPrefix("layer_norm") && $0.contains("cold") })
  }

  @Test func productsAreComparedWithThatOfOneRow() throws {
    let result = try Command.run([
      "bench", "--seconds", "0", "--filter", "product_q4_0,linear_q4_0", "--shape", "M=512,K=512",
      "--cache", "cold", "--threads", "1",
    ])
    #expect(result.status == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n")
    for name in ["product_q4_0", "linear_q4_0"] {
      #expect(lines.count { $0.hasPrefix(name) && $0.contains(" M=512 K=512 ") } == 7)
      let ratios = try #require(lines.first { $0.hasPrefix("\(name) M=512 K=512, 1 thread") })
      // a name of five words, a time of two, and the ratios of 2, 4, 8, 16, 64 and 512 rows
      #expect(ratios.split(separator: " ").suffix(6).allSatisfy { (Double($0) ?? 0) > 0 })
    }
    #expect(lines.contains { $0.hasPrefix("time over that of 1 row") && $0.hasSuffix("R=512") })
  }

  @Test(arguments: [
    (["--filter", "frobnicate"], "attention_prefill"),
    (["--filter", "decode", "--shape", "X=3"], "there are Hq, Hk, D, S, T, window"),
    (["--shape", "S=0"], "S=0"),
    (["--shape", "S"], "--shape"),
    (["--shape", "S=9999999999"], "would take"),
    (["--filter", "decode", "--shape", "Hq=3,Hk=2,S=8"], "not a multiple of Hk=2"),
    (["--filter", "merge", "--dtype", "bf16"], "takes bf16"),
    (["--threads", "1,x"], "--threads"),
    (["--isa", "mmx"], "mmx"),
    (["--json", "/nowhere/rows.json"], "/nowhere/rows.json: cannot be written"),
  ])
  func failuresAreOneLineThatNamesTheFault(arguments: [String], message: String) throws {
    let result = try Command.run(["bench", "--seconds", "0"] + arguments)
    #expect(result.status == 1)
    #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    #expect(result.errors.hasPrefix("longspan: "))
    #expect(result.errors.contains(message), "\(result.errors)")
  }
}
