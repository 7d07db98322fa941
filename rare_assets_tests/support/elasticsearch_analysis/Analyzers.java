package rare_assets_tests;

import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.ar.ArabicAnalyzer;
import org.apache.lucene.analysis.bg.BulgarianAnalyzer;
import org.apache.lucene.analysis.bn.BengaliAnalyzer;
import org.apache.lucene.analysis.br.BrazilianAnalyzer;
import org.apache.lucene.analysis.ca.CatalanAnalyzer;
import org.apache.lucene.analysis.cjk.CJKAnalyzer;
import org.apache.lucene.analysis.ckb.SoraniAnalyzer;
import org.apache.lucene.analysis.cz.CzechAnalyzer;
import org.apache.lucene.analysis.da.DanishAnalyzer;
import org.apache.lucene.analysis.de.GermanAnalyzer;
import org.apache.lucene.analysis.el.GreekAnalyzer;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.analysis.es.SpanishAnalyzer;
import org.apache.lucene.analysis.et.EstonianAnalyzer;
import org.apache.lucene.analysis.eu.BasqueAnalyzer;
import org.apache.lucene.analysis.fa.PersianAnalyzer;
import org.apache.lucene.analysis.fi.FinnishAnalyzer;
import org.apache.lucene.analysis.fr.FrenchAnalyzer;
import org.apache.lucene.analysis.ga.IrishAnalyzer;
import org.apache.lucene.analysis.gl.GalicianAnalyzer;
import org.apache.lucene.analysis.hi.HindiAnalyzer;
import org.apache.lucene.analysis.hu.HungarianAnalyzer;
import org.apache.lucene.analysis.hy.ArmenianAnalyzer;
import org.apache.lucene.analysis.id.IndonesianAnalyzer;
import org.apache.lucene.analysis.it.ItalianAnalyzer;
import org.apache.lucene.analysis.lt.LithuanianAnalyzer;
import org.apache.lucene.analysis.lv.LatvianAnalyzer;
import org.apache.lucene.analysis.nl.DutchAnalyzer;
import org.apache.lucene.analysis.no.NorwegianAnalyzer;
import org.apache.lucene.analysis.pt.PortugueseAnalyzer;
import org.apache.lucene.analysis.ro.RomanianAnalyzer;
import org.apache.lucene.analysis.ru.RussianAnalyzer;
import org.apache.lucene.analysis.sr.SerbianAnalyzer;
import org.apache.lucene.analysis.sv.SwedishAnalyzer;
import org.apache.lucene.analysis.th.ThaiAnalyzer;
import org.apache.lucene.analysis.tr.TurkishAnalyzer;
import org.elasticsearch.plugin.NamedComponent;
import org.elasticsearch.plugin.analysis.AnalyzerFactory;

/** Lucene's analyzers of languages under the names that a full Elasticsearch distribution gives them. */
public final class Analyzers {
    private Analyzers() {}

    @NamedComponent("arabic")
    public static class Arabic implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new ArabicAnalyzer();
        }
    }

    @NamedComponent("armenian")
    public static class Armenian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new ArmenianAnalyzer();
        }
    }

    @NamedComponent("basque")
    public static class Basque implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new BasqueAnalyzer();
        }
    }

    @NamedComponent("bengali")
    public static class Bengali implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new BengaliAnalyzer();
        }
    }

    @NamedComponent("brazilian")
    public static class Brazilian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new BrazilianAnalyzer();
        }
    }

    @NamedComponent("bulgarian")
    public static class Bulgarian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new BulgarianAnalyzer();
        }
    }

    @NamedComponent("catalan")
    public static class Catalan implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new CatalanAnalyzer();
        }
    }

    @NamedComponent("cjk")
    public static class Cjk implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new CJKAnalyzer();
        }
    }

    @NamedComponent("czech")
    public static class Czech implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new CzechAnalyzer();
        }
    }

    @NamedComponent("danish")
    public static class Danish implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new DanishAnalyzer();
        }
    }

    @NamedComponent("dutch")
    public static class Dutch implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new DutchAnalyzer();
        }
    }

    @NamedComponent("english")
    public static class English implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new EnglishAnalyzer();
        }
    }

    @NamedComponent("estonian")
    public static class Estonian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new EstonianAnalyzer();
        }
    }

    @NamedComponent("finnish")
    public static class Finnish implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new FinnishAnalyzer();
        }
    }

    @NamedComponent("french")
    public static class French implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new FrenchAnalyzer();
        }
    }

    @NamedComponent("galician")
    public static class Galician implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new GalicianAnalyzer();
        }
    }

    @NamedComponent("german")
    public static class German implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new GermanAnalyzer();
        }
    }

    @NamedComponent("greek")
    public static class Greek implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new GreekAnalyzer();
        }
    }

    @NamedComponent("hindi")
    public static class Hindi implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new HindiAnalyzer();
        }
    }

    @NamedComponent("hungarian")
    public static class Hungarian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new HungarianAnalyzer();
        }
    }

    @NamedComponent("indonesian")
    public static class Indonesian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new IndonesianAnalyzer();
        }
    }

    @NamedComponent("irish")
    public static class Irish implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new IrishAnalyzer();
        }
    }

    @NamedComponent("italian")
    public static class Italian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new ItalianAnalyzer();
        }
    }

    @NamedComponent("latvian")
    public static class Latvian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new LatvianAnalyzer();
        }
    }

    @NamedComponent("lithuanian")
    public static class Lithuanian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new LithuanianAnalyzer();
        }
    }

    @NamedComponent("norwegian")
    public static class Norwegian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new NorwegianAnalyzer();
        }
    }

    @NamedComponent("persian")
    public static class Persian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new PersianAnalyzer();
        }
    }

    @NamedComponent("portuguese")
    public static class Portuguese implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new PortugueseAnalyzer();
        }
    }

    @NamedComponent("romanian")
    public static class Romanian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new RomanianAnalyzer();
        }
    }

    @NamedComponent("russian")
    public static class Russian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new RussianAnalyzer();
        }
    }

    @NamedComponent("serbian")
    public static class Serbian implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new SerbianAnalyzer();
        }
    }

    @NamedComponent("sorani")
    public static class Sorani implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new SoraniAnalyzer();
        }
    }

    @NamedComponent("spanish")
    public static class Spanish implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new SpanishAnalyzer();
        }
    }

    @NamedComponent("swedish")
    public static class Swedish implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new SwedishAnalyzer();
        }
    }

    @NamedComponent("thai")
    public static class Thai implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new ThaiAnalyzer();
        }
    }

    @NamedComponent("turkish")
    public static class Turkish implements AnalyzerFactory {
        @Override
        public Analyzer create() {
            return new TurkishAnalyzer();
        }
    }
}
